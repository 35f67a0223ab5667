"""Beyond the inversion paper: deleted images, recovered after every other way of unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, FEATURES, RANK, STEADY, TWO_DISTANCES, features
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

METHODS = (
    "retrain", "single_gradient", "finetune", "noisy_gradient_descent", "gradient_ascent", "negative_gradient", "random_label",
    "salun", "l1_sparse", "influence", "exact_unlearning_k", "catastrophic_forgetting_k", "scrub", "fisher", "ssd",
    "features_and_labels", "boundary_shrink",
)  # fmt: skip
"""Those that need no training of their own, and no validation records of what is forgotten."""
NEEDY = (
    "retrain", "single_gradient", "amnesiac", "deltagrad", "certified_removal", "descent_to_delete", "sisa", "scrub_rewind",
)  # fmt: skip
"""Those that do, with two for comparison, on a linear model of digits, which is what the certified ones are for."""
_PART, _LINEAR = "one image each", "one digit each"


def _row(method: str, target: str = "unlearned", part: str = _PART) -> Where:
    return Where(part, target, method)


def _beyond(method: str, part: str = _PART) -> tuple[tuple[float, Where], ...]:
    return (1.0, _row(method, part=part) | RANK), (-1.0, _row(method, "placebo", part) | RANK)


DIGITS: dict[str, Any] = {
    "data": "digits",
    "model": "linear",
    "learner": "plain",
    "recipe": {
        "epochs": 10,
        "batch_size": 128,
        "lr": 0.05,
        "momentum": 0.0,
        "weight_decay": 0.0005,
        "schedule": "constant",
    },
    "unlearn": list(NEEDY),
    "attack": [FEATURES],
    "verify": ["accuracy"],
    "separate": True,
    "controls": 1,
    "threads": 1,
    "settings": {"digits": {"public": 0.6}, FEATURES: {"iterations": 600, "restarts": 2, **STEADY}},
}
"""Plain SGD from fresh weights on about 480 digits; the others teach the network that judges distances, and no model."""


@dataclass(frozen=True)
class InversionMethods(Study):
    """One image deleted at a time by each method at its defaults, from a fine-tuned model; those that need more, on digits. Not in
    the paper.

    The attack takes the difference of two models for a gradient of the deleted records, which it is of a single gradient step;
    methods that train on what is kept move the weights elsewhere too.
    """

    paper = "beyond the inversion paper: its attack, after other methods"
    about = "single deleted images, recovered after each unlearning method"
    tables = (
        Table("Deleted images", {method: _row(method) for method in METHODS}, COLUMNS),
        Table("Deleted images: placebo", {method: _row(method, "placebo") for method in METHODS}, COLUMNS),
        Table("Deleted digits", {method: _row(method, part=_LINEAR) for method in NEEDY}, COLUMNS),
        Table("Deleted digits: placebo", {method: _row(method, "placebo", _LINEAR) for method in NEEDY}, COLUMNS),
    )
    claims = (
        Claim("single_gradient: ranked higher than the placebo", _beyond("single_gradient"), above=0.0),
        Claim("gradient_ascent: ranked higher than the placebo", _beyond("gradient_ascent"), above=0.0),
        Claim("finetune: ranked less than 0.1 above the placebo", _beyond("finetune"), below=0.1),
        *(
            Claim(f"digits, {method}: ranked higher than the placebo", _beyond(method, _LINEAR), above=0.0)
            for method in ("deltagrad", "descent_to_delete")
        ),
    )
    notes = (
        TWO_DISTANCES,
        "amnesiac and deltagrad need a recorded run, deltagrad one without batch norm; certified_removal and descent_to_delete are "
        "for linear models that learners of their own trained; sisa needs shards, and its model is an ensemble: each is compared "
        "with an original of its own. scrub_rewind needs validation records.",
        "A certificate is of the release after deletion, beside one of a model trained anew; descent_to_delete's noise covers the "
        "difference of those two and not that from the release before, which is what this attacker has.",
        "image_to_image is left out: it unlearns models that draw images, and this attack inverts classifiers.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        count, seeds = (6, 2) if scale == "small" else (100, 3)
        images = features(scale, forget=[f"random={count}/1"], unlearn=list(METHODS), seeds=seeds)
        return {_PART: images, _LINEAR: {**DIGITS, "forget": [f"random={count}/1"], "seeds": seeds}}
