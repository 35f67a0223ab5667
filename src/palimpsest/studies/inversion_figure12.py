"""Figure 12 of the inversion paper: images recovered behind fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._defended import ADDITIONAL, audits, curve, farther, table
from palimpsest.studies._inversion import TWO_DISTANCES
from palimpsest.studies.base import Scale, Study

_DEFENCES = ("fine-tuning",)


@dataclass(frozen=True)
class InversionFigure12(Study):
    """Single images deleted by a single gradient from models of CIFAR-10, whose releases are defended."""

    paper = "inversion paper, Figure 12"
    about = "images recovered behind fine-tuning"
    tables = (table("Figure 12", _DEFENCES, {}),)
    curves = tuple(curve("Figure 12", name) for name in _DEFENCES)
    claims = tuple(map(farther, _DEFENCES))
    notes = (
        "The paper says that its accuracy ratios lie between 35 % and 135 %, and prints no other number of this figure.",
        ADDITIONAL,
        TWO_DISTANCES,
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {name: fields for defence in _DEFENCES for name, fields in audits(scale, defence).items()}
