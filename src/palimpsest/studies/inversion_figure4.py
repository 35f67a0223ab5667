"""Figure 4 of the inversion paper: how answers to probes change when a class is deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import ACCURACY, DROPS, MARGIN, PICTURES, labels, rows
from palimpsest.studies.base import Claim, Scale, Study, Table

_PART = "class 0"
_ROWS = rows(_PART)


@dataclass(frozen=True)
class InversionFigure4(Study):
    """All records of class 0 deleted, ten probes a class. A drop is minus the paper's confidence change."""

    paper = "inversion paper, Figure 4"
    about = "which class was deleted: confidence that probes of each class lose"
    tables = (Table("Figure 4: drop of confidence", _ROWS, {**DROPS, "accuracy": ACCURACY, "margin": MARGIN}),)
    claims = tuple(
        Claim(
            f"{name}: probes of the deleted class lose most", ((1.0, _ROWS[f"{name} unlearning"] | MARGIN),), above=0.0
        )
        for name in ("exact", "approximate")
    )
    notes = (PICTURES,)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {_PART: labels(scale, forget=["class=0"])}
