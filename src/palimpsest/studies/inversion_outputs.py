"""Beyond the inversion paper: the deleted class, named behind services that answer with less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._defended import RATIO
from palimpsest.studies._inversion import ACCURACY, LABELS, METHODS, at, by_class, labels
from palimpsest.studies.base import Claim, Scale, Study, Table, Tradeoff, Weighed, Where

BARE, ADAPTIVE = METHODS["approximate"], "label_only_inference"
ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "top 5": ("top_k", {"k": 5}),
    "top 3": ("top_k", {"k": 3}),
    "top 1": ("top_k", {"k": 1}),
    "labels only": ("labels_only", {}),
}
"""What the service answers with: the defence and its settings, the weakest first."""
LINES = {"top_k": {5.0: "top 5", 3.0: "top 3", 1.0: "top 1"}, "labels_only": {0.0: "labels only"}}
ATTACKERS = {"posteriors": ACCURACY, "labels alone": at("accuracy", ADAPTIVE)}
"""The paper's attacker, and one who goes by labels alone, which no answer of a class can be kept from."""


def defended(part: str, target: str = "unlearned") -> Where:
    return Where(part, target, f"{BARE}+{ANSWERS[part][0]}")


def undefended(part: str, target: str = "unlearned") -> Where:
    """Of the same audit."""
    return Where(part, target, BARE)


_ROWS = {
    "undefended": undefended("top 5"),
    **{part: defended(part) for part in ANSWERS},
    "undefended: placebo": undefended("top 5", "placebo"),
    **{f"{part}: placebo": defended(part, "placebo") for part in ANSWERS},
}


@dataclass(frozen=True)
class InversionOutputs(Study):
    """Each class of digits deleted whole by a single gradient, behind services that answer with few posteriors or the label alone;
    named by the paper's attack, its probes by random squares, and from labels alone. Not in the paper.

    The accuracy of a service is not altered by any of these; what its users lose is how sure the model is.
    """

    paper = "beyond the inversion paper: defences of the answers"
    about = "which class was deleted, behind services that answer with few posteriors or labels alone"
    tables = (
        Table(
            "Each class deleted whole",
            _ROWS,
            {
                "Acc., from posteriors": ACCURACY,
                "probes accepted": at("accepted_rate", LABELS),
                "queries": at("probe_queries", LABELS),
                "Acc., from labels alone": ATTACKERS["labels alone"],
                "queries, labels alone": at("probe_queries", ADAPTIVE),
            },
        ),
    )
    tradeoffs = tuple(
        Tradeoff(
            f"An attacker who goes by {attacker}",
            "accuracy ratio",
            "deleted class named",
            {
                line: [
                    Weighed(
                        value,
                        defended(part) | RATIO,
                        defended(part) | accuracy,
                        defended(part, "placebo") | accuracy,
                        undefended(part) | accuracy,
                        undefended(part, "placebo") | accuracy,
                    )
                    for value, part in settings.items()
                ]
                for line, settings in LINES.items()
            },
        )
        for attacker, accuracy in ATTACKERS.items()
    )
    claims = (
        Claim(
            "undefended: the class is named in more than 3 of 4",
            by_class(undefended("top 5")),
            above=0.75,
        ),
        Claim(
            "labels only: posteriors that are none name the class less often",
            ((1.0, defended("labels only") | ACCURACY), (-1.0, undefended("labels only") | ACCURACY)),
            below=0.0,
        ),
        Claim(
            "labels only: one who goes by labels names the class in more than half",
            ((1.0, defended("labels only") | ATTACKERS["labels alone"]),),
            above=0.5,
        ),
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {
            part: labels(
                scale,
                forget=[f"class={c}" for c in range(10)],
                separate=True,
                unlearn=[BARE],
                defend=[defence],
                attack=[LABELS, ADAPTIVE],
                settings={LABELS: {"strategy": "random_squares"}, **({defence: fields} if fields else {})},
            )
            for part, (defence, fields) in ANSWERS.items()
        }
