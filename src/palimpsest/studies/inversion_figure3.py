"""Figure 3 of the inversion paper: single deleted images, recovered from two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import (
    COLUMNS,
    FEATURES,
    METHODS,
    OVER_COLOUR,
    PAPERS_FORM,
    RANK,
    SOFT,
    TWO_DISTANCES,
    features,
    paper,
    rows,
)
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

_SETS = ("CIFAR-10", "CIFAR-100", "STL-10")
_SOFTLY = "CIFAR-10, softened network"
_TA = {"TA": Where(measure="test_accuracy", times=100.0)}


def _claims(part: str) -> tuple[Claim, ...]:
    row = rows(part)
    approximate, placebo = row["approximate unlearning"], row["approximate: placebo"]
    return (
        Claim(
            f"{part}, approximate: mean rank of the deleted image above 0.75", ((1.0, approximate | RANK),), above=0.75
        ),
        Claim(
            f"{part}, approximate: the same, of these victims' records",
            ((1.0, approximate | RANK),),
            above=0.75,
            fixed=True,
        ),
        Claim(
            f"{part}, approximate: ranked higher than by mean colour", ((1.0, approximate | OVER_COLOUR),), above=0.0
        ),
        Claim(
            f"{part}, approximate: ranked higher than the placebo, by 0.1 or more",
            ((1.0, approximate | RANK), (-1.0, placebo | RANK)),
            above=0.1,
        ),
        Claim(f"{part}, approximate: mean rank of the placebo above 0.4", ((1.0, placebo | RANK),), above=0.4),
        Claim(f"{part}, approximate: mean rank of the placebo below 0.6", ((1.0, placebo | RANK),), below=0.6),
    )


def _than_exact(part: str) -> Claim:
    row = rows(part)
    terms = ((1.0, row["approximate unlearning"] | RANK), (-1.0, row["exact unlearning"] | RANK))
    return Claim(f"{part}: approximate unlearning gives more away than exact", terms, above=0.0)


@dataclass(frozen=True)
class InversionFigure3(Study):
    """One image deleted at a time, after one epoch of fine-tuning, by retraining and by a single gradient.

    Small: CIFAR-10, 34 deletions of each of three victims. Is the deleted image told from unseen ones of its class? Approximate
    deletions once more by a search that the paper does not have, with as many steps: on a network whose ReLU is softened, comparing
    weights alone and all layers alike, with more total variation.
    """

    paper = "inversion paper, Figure 3"
    about = "single deleted images, recovered from the models before and after"
    tables = (
        *(Table(f"Figure 3: {part}", rows(part), {**COLUMNS, **_TA}) for part in _SETS),
        Table(f"Beyond the paper: {_SOFTLY}", rows(_SOFTLY, kinds=["approximate"]), {**COLUMNS, **_TA}),
    )
    claims = (
        *(claim for part in (*_SETS, _SOFTLY) for claim in _claims(part)),
        *map(_than_exact, _SETS),
        Claim(
            "CIFAR-10, approximate: the softened network ranks deleted images higher than the paper's form",
            tuple(
                (sign, rows(part)["approximate unlearning"] | RANK)
                for sign, part in ((1.0, _SOFTLY), (-1.0, "CIFAR-10"))
            ),
            above=0.0,
        ),
    )
    notes = (
        "The paper writes the distances of its examples into the picture (5.1) and repeats none in its text: there are no printed "
        "numbers here to stand beside the measured ones.",
        TWO_DISTANCES,
    )
    pictured = (*_SETS, _SOFTLY)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        asked = {"forget": ["random=34/1"]}
        papers = PAPERS_FORM if scale == "small" else {}
        softly = {"unlearn": [METHODS["approximate"]], "settings": {FEATURES: {**papers, **SOFT}}}
        if scale == "small":
            found = {"CIFAR-10": features(scale, **asked, settings={FEATURES: papers})}
        else:
            found = {name: paper(name, **asked) for name in _SETS}
        return {**found, _SOFTLY: features(scale, **asked, **softly)}
