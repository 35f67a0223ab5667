"""Figure 5 of the inversion paper: eight private images, each deleted alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._few import BATCH, audit, part
from palimpsest.studies._inversion import COLUMNS, RANK, TWO_DISTANCES, rows
from palimpsest.studies.base import Claim, Scale, Study, Table

_ROWS = rows(part(8))


@dataclass(frozen=True)
class InversionFigure5(Study):
    """Fine-tuned on eight images of CIFAR-10; the report of its audit shows what was recovered of each."""

    paper = "inversion paper, Figure 5"
    about = "images recovered where the model was fine-tuned on eight"
    tables = (Table("Figure 5", _ROWS, COLUMNS),)
    claims = tuple(
        Claim(
            f"{name} unlearning: the deleted image is ranked higher than the placebo",
            ((1.0, _ROWS[f"{name} unlearning"] | RANK), (-1.0, _ROWS[f"{name}: placebo"] | RANK)),
            above=0.0,
        )
        for name in ("exact", "approximate")
    )
    notes = (
        TWO_DISTANCES,
        BATCH,
        "Its numbers are the paper's Table 2. All victims have the same images, drawn by their ids.",
    )
    pictured = (part(8),)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {part(8): audit(scale, 8)}
