"""Figure 9 of the inversion paper: how answers to probes change when a part of a class is deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import ACCURACY, DROPS, MARGIN, PICTURES, labels, rows_of
from palimpsest.studies.base import Claim, Scale, Study, Table

_SHARES = {"a tenth": "class=0:0.1", "a half": "class=0:0.5", "all of it": "class=0"}
_ROWS = rows_of(_SHARES)


@dataclass(frozen=True)
class InversionFigure9(Study):
    """A tenth, a half and all records of class 0 deleted, ten probes a class. A drop is minus the paper's confidence change."""

    paper = "inversion paper, Figure 9"
    about = "which class was deleted from, when a part of it was"
    tables = (Table("Figure 9: drop of confidence", _ROWS, {**DROPS, "accuracy": ACCURACY, "margin": MARGIN}),)
    claims = tuple(
        Claim(
            f"{name} unlearning of {part}: probes of the class lose most",
            ((1.0, _ROWS[f"{name} unlearning, {part}"] | MARGIN),),
            above=0.0,
        )
        for part in _SHARES
        for name in ("exact", "approximate")
        if (part, name) != ("a tenth", "exact")
    )
    notes = (
        PICTURES,
        "The paper finds the class in every case but exact unlearning of a tenth, of which nothing is claimed.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {part: labels(scale, forget=[selection]) for part, selection in _SHARES.items()}
