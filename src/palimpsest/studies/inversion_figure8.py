"""Figure 8 of the inversion paper: many images deleted at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, METHODS, NO_LPIPS, PICTURES, RANK, features, rows
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

SIZES = {"small": (1, 8, 16), "paper": (1, 8, 16, 32, 128)}
_EVERY = sorted({size for sizes in SIZES.values() for size in sizes})


def _part(size: int) -> str:
    return f"{size} at once"


def _method(size: int, target: str = "unlearned") -> Where:
    return Where(_part(size), target, METHODS["approximate"])


@dataclass(frozen=True)
class InversionFigure8(Study):
    """Approximate unlearning of many images at once; samples are matched with records before they are judged, the placebo's too.

    The paper shows five readable ones of 128; its Figures 18 to 20 show all of 8, 16 and 32 of CIFAR-100.
    """

    paper = "inversion paper, Figure 8 (and 18 to 20)"
    about = "images recovered where many are deleted at once"
    tables = tuple(
        Table(f"Figure 8: {_part(size)}", rows(_part(size), kinds=["approximate"]), COLUMNS) for size in _EVERY
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
        NO_LPIPS,
        "Matching k samples with k records raises ranks by itself: the placebo says by how much.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {
            _part(size): features(
                scale, forget=[f"random={max(2, 12 // size) * size}/{size}"], unlearn=[METHODS["approximate"]]
            )
            for size in SIZES[scale]
        }
