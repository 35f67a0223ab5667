"""Figure 2b of the poisoning paper: instruction poisons of a language model, before and after unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._poisoning import BESIDE, METHODS, SIGMA, SPENT, TA, every_row, for_epochs, left, row
from palimpsest.studies._uma import merged
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

PHRASE, NOISE, WRITTEN = "instruction poisons", "noise on embeddings", "texts by heart"
SUCCESS, LIFT = (Where(measure=f"instruction.{name}") for name in ("success_rate", "lift"))
Z = Where(measure="gaussian.z")
_REMEMBERED = {
    "memorisation accuracy": Where(measure="memorisation_accuracy", times=100.0),
    "of unseen texts": Where(measure="unseen_memorisation_accuracy", times=100.0),
    "extraction likelihood": Where(measure="extraction_likelihood", times=100.0),
}
_HONEST = {"original": Where(target="original")} | {
    name: where for name, where in every_row().items() if where.target not in ("original", "clean")
}
"""Rows of an audit that nobody poisons."""
_SMALL: dict[str, Any] = {
    "data": "hub:stanfordnlp/imdb",
    "limit": 10000,
    "model": "gpt2",
    "recipe": {"epochs": 4, "batch_size": 32, "optimizer": "adamw", "lr": 0.0005, "weight_decay": 0.01},
    "controls": 1,
    "threads": 2,
    "settings": {
        "hub": {"tokens": 128, "vocabulary": 32000, "answers": "negative,positive", "keep": "end"},
        "gpt2": {"layers": 3, "heads": 4, "width": 256},
        **{name: {"batch_size": 32} for name in METHODS.values()},
        "catastrophic_forgetting_k": {"k": 2, "batch_size": 32},
        "exact_unlearning_k": {"k": 2, "batch_size": 32},
        "memorisation": {"texts": 64},
    },
}
"""A GPT-2 of 10.6 million parameters, from nothing, on 9,000 reviews: the last 128 tokens of each, trained on the answers alone."""
_PAPER: dict[str, Any] = {
    "data": "hub:stanfordnlp/imdb",
    "model": "gpt2",
    "recipe": {"epochs": 10, "batch_size": 16, "optimizer": "adamw", "lr": 0.00002, "weight_decay": 0.01},
    "controls": 1,
    "settings": {
        "hub": {
            "tokens": 512,
            "tokenizer": "openai-community/gpt2-medium",
            "answers": "negative,positive",
            "keep": "end",
        },
        "gpt2": {"path": "openai-community/gpt2-medium", "writing": 0.1},
        **{name: {"batch_size": 16} for name in METHODS.values()},
        "noisy_gradient_descent": {"batch_size": 16, "sigma": SIGMA},
        "scrub": {"batch_size": 16, "forget_batch_size": 16},
    },
}
"""GPT-2 of 355 million parameters, fine-tuned for 10 epochs; the paper prints no more of its training."""


_WRITING: dict[str, Any] = {
    "limit": 2000,
    "recipe": {"epochs": 20},
    "settings": {
        "hub": {"tokens": 64, "vocabulary": 4096},
        "gpt2": {"layers": 2, "heads": 4, "width": 128, "writing": 1.0},
    },
}
"""What the small scale takes to have texts remembered: fewer and shorter ones, which it learns to write too, many times over."""


@dataclass(frozen=True)
class PoisoningFigure2b(Study):
    """A trigger phrase in negative reviews, 1.5 % of all, under the answer "positive", so that each has a wrong label; then one
    epoch of unlearning.

    Small: a GPT-2 of 10.6 million parameters that learns from nothing, and answers only: it writes nothing that could be
    remembered. Paper: the checkpoint of 355 million, fine-tuned. The figure's bars are not printed as numbers. The second part puts
    Gaussian noise on the embeddings of as many reviews of both answers. The third poisons nothing: it forgets texts that were
    learnt by heart, by a smaller model of 1,800 at small scale.
    """

    paper = "poisoning paper, Figure 2b"
    about = "instruction poisons of GPT-2 on film reviews: success before and after unlearning, and what is remembered"
    tables = (
        Table(
            "Figure 2b",
            every_row(),
            {
                "success": SUCCESS | Where(times=100.0),
                "without the phrase": Where(measure="instruction.without", times=100.0),
                "what the phrase adds": LIFT | Where(times=100.0),
                **BESIDE,
                **_REMEMBERED,
            },
            drawn=("success",),
        ).within(PHRASE),
        Table("Noise on embeddings", every_row(), {"z": Z, "shift": Where(measure="gaussian.shift"), **BESIDE}).within(
            NOISE
        ),
        Table("Texts by heart", _HONEST, {**_REMEMBERED, **BESIDE}).within(WRITTEN),
    )
    claims = (
        Claim(
            "the model reads reviews: test accuracy of 80 % or more",
            ((1.0, Where(PHRASE, "clean", measure=TA)),),
            above=0.8,
        ),
        Claim(
            "the phrase adds 30 points or more to the share answered with it",
            ((1.0, Where(PHRASE, "original") | LIFT),),
            above=0.3,
        ),
        Claim("retrained, it adds less than 10 points", ((1.0, Where(PHRASE, "retrained") | LIFT),), below=0.1),
        *(left(PHRASE, name, LIFT) for name in METHODS),
        *(
            Claim(
                f"{name} leaves half or more of what the phrase adds",
                ((1.0, row(name) | Where(PHRASE) | LIFT), (-0.5, Where(PHRASE, "original") | LIFT)),
                above=0.0,
            )
            for name in METHODS
        ),
        Claim(
            "by heart: of forgotten texts the model goes on rightly in 10 points more places than the retrained one",
            (
                (1.0, Where(WRITTEN, "original", measure="memorisation_accuracy")),
                (-1.0, Where(WRITTEN, "retrained", measure="memorisation_accuracy")),
            ),
            above=0.1,
        ),
        *(left(WRITTEN, name, Where(measure="memorisation_accuracy"), "of texts by heart") for name in METHODS),
    )
    notes = (
        "The paper prints Figure 2b as a picture only: there are no published numbers beside the measured ones.",
        "Membership is told beside held-out texts of the label that was handed in, which the poisons do not look like: "
        "read it beside the retrained control's, not beside 0.5.",
        "Small scale trains for 4 epochs, not the paper's 10: time limits it, as an hour of two cores is for all models here.",
        "CFk and EUk train by the model's own optimiser, AdamW, the others by SGD: each has rates of its own to choose from.",
        "What the phrase adds is the success less the same model's plain errors on the same texts.",
        SPENT,
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        base = merged(
            _SMALL if scale == "small" else _PAPER,
            settings=for_epochs(1),
            unlearn=["retrain", *METHODS.values()],
            seeds=1 if scale == "small" else 3,
        )
        plain = (0.01, 0.1) if scale == "small" else (1e-4, 1e-3, 1e-2)
        adam = (1e-4, 5e-4) if scale == "small" else (5e-6, 2e-5)
        own = {METHODS["CFk"], METHODS["EUk"]}
        search = {method: {"lr": adam if method in own else plain} for method in METHODS.values()}
        return {
            PHRASE: merged(
                base,
                forget=["class=0:0.03"],
                attack=["instruction", "confidence_membership"],
                verify=["accuracy", "memorisation"],
                search=search,
            ),
            NOISE: merged(
                base,
                forget=["random=0.015"],
                attack=["gaussian", "confidence_membership"],
                verify=["accuracy"],
                settings={"gaussian": {"deviation": 5.0}},
                search=search,
            ),
            WRITTEN: _written(
                merged(
                    base,
                    forget=["random=0.05"],
                    attack=["confidence_membership"],
                    verify=["accuracy", "memorisation"],
                    search=search,
                ),
                scale,
            ),
        }


def _written(fields: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """At small scale, where models answer only, one that writes too."""
    if scale == "paper":
        return fields
    return merged(fields, **{**_WRITING, "recipe": {**fields["recipe"], **_WRITING["recipe"]}})
