"""Figure 8 of the inversion paper: many images deleted at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, METHODS, PICTURES, RANK, TWO_DISTANCES, features, rows
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

SIZES = (1, 8, 16, 32, 128)
MANY = 32
"""From so many on, small has one request of one victim."""


def _part(size: int) -> str:
    return f"{size} at once"


def _method(size: int, target: str = "unlearned") -> Where:
    return Where(_part(size), target, METHODS["approximate"])


@dataclass(frozen=True)
class InversionFigure8(Study):
    """Approximate unlearning of many images at once; samples are matched with records before they are judged, the placebo's too.

    The paper shows five readable ones of 128; its Figures 18 to 20 show all of 8, 16 and 32 of CIFAR-100. Small: of 32 and of 128
    at once one request each, of one victim.
    """

    paper = "inversion paper, Figure 8 (and 18 to 20)"
    about = "images recovered where many are deleted at once"
    tables = tuple(
        Table(f"Figure 8: {_part(size)}", rows(_part(size), kinds=["approximate"]), COLUMNS) for size in SIZES
    )
    claims = (
        Claim(
            "one of 16 deleted at once is ranked lower than one that is deleted alone",
            ((1.0, _method(1) | RANK), (-1.0, _method(16) | RANK)),
            above=0.0,
        ),
        Claim(
            "of 16 deleted at once, images are ranked higher than the placebo",
            ((1.0, _method(16) | RANK), (-1.0, _method(16, "placebo") | RANK)),
            above=0.0,
        ),
    )
    notes = (
        PICTURES,
        TWO_DISTANCES,
        "Matching k samples with k records raises ranks by itself: the placebo says by how much.",
    )
    pictured = tuple(map(_part, SIZES))

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        found = {}
        for size in SIZES:
            once = scale == "small" and size >= MANY
            requests = 1 if once else max(2, 12 // size)
            changes = {"seeds": 1} if once else {}
            found[_part(size)] = features(
                scale, forget=[f"random={requests * size}/{size}"], unlearn=[METHODS["approximate"]], **changes
            )
        return found
