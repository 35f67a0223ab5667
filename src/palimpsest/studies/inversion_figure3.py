"""Figure 3 of the inversion paper: single deleted images, recovered from two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, OVER_COLOUR, RANK, TWO_DISTANCES, features, paper, rows
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

_SETS = ("CIFAR-10", "CIFAR-100", "STL-10")
_TA = {"TA": Where(measure="test_accuracy", times=100.0)}


def _claims(part: str) -> tuple[Claim, ...]:
    row = rows(part)
    exact, approximate = row["exact unlearning"], row["approximate unlearning"]
    placebo = row["approximate: placebo"]
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
        Claim(
            f"{part}: approximate unlearning gives more away than exact",
            ((1.0, approximate | RANK), (-1.0, exact | RANK)),
            above=0.0,
        ),
    )


@dataclass(frozen=True)
class InversionFigure3(Study):
    """One image deleted at a time, after one epoch of fine-tuning, by retraining and by a single gradient.

    Small: CIFAR-10, 34 deletions of each of three victims. Is the deleted image told from unseen ones of its class?
    """

    paper = "inversion paper, Figure 3"
    about = "single deleted images, recovered from the models before and after"
    tables = tuple(Table(f"Figure 3: {part}", rows(part), {**COLUMNS, **_TA}) for part in _SETS)
    claims = tuple(claim for part in _SETS for claim in _claims(part))
    notes = (
        "The paper writes the distances of its examples into the picture (5.1) and repeats none in its text: there are no printed "
        "numbers here to stand beside the measured ones.",
        TWO_DISTANCES,
    )
    pictured = tuple(_SETS)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        if scale == "small":
            return {"CIFAR-10": features(scale, forget=["random=34/1"])}
        return {name: paper(name, forget=["random=34/1"]) for name in _SETS}
