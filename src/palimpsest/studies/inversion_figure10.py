"""Figure 10 of the inversion paper: several classes deleted at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import ACCURACY, DROPS, labels, rows_of
from palimpsest.studies.base import Claim, Scale, Study, Table

_CLASSES = {"three classes": "class=0,1,2", "five classes": "class=0,1,2,3,4"}
_ROWS = rows_of(_CLASSES)


@dataclass(frozen=True)
class InversionFigure10(Study):
    """All records of classes 0 to 2, and of 0 to 4, deleted; the K classes whose probes lose most are the answer."""

    paper = "inversion paper, Figure 10"
    about = "which classes were deleted, three or five at once"
    tables = (
        Table(
            "Figure 10: share of the classes that is named, and drop of confidence",
            _ROWS,
            {"accuracy": ACCURACY, **DROPS},
            {"approximate unlearning, three classes": (2 / 3,), "approximate unlearning, five classes": (4 / 5,)},
        ),
    )
    claims = tuple(
        Claim(
            f"approximate unlearning of {part}: more of them are named than by chance",
            ((1.0, _ROWS[f"approximate unlearning, {part}"] | ACCURACY),),
            above=chance,
            printed=printed,
        )
        for part, chance, printed in (("three classes", 0.3, 2 / 3), ("five classes", 0.5, 4 / 5))
    )
    notes = (
        "The paper prints 2/3 and 4/5 and does not say of which kind of unlearning; here they stand beside the approximate one.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {part: labels(scale, forget=[selection]) for part, selection in _CLASSES.items()}
