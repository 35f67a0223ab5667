"""Figure 12 of the inversion paper: images recovered behind fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from palimpsest.studies._defended import KNOWS, RATIO, SETTINGS, audits, defended, part, undefended
from palimpsest.studies._inversion import COLUMNS, LPIPS, NO_LPIPS, RANK
from palimpsest.studies.base import Claim, Curve, Scale, Study, Table

_DEFENCES = ("fine-tuning",)
_ROWS = {part(name, value): defended(name, value) for name in _DEFENCES for value in SETTINGS[name][2]}
_FREE = {
    f"{part(name, value)}, undefended": undefended(name, value) for name in _DEFENCES for value in SETTINGS[name][2]
}


@dataclass(frozen=True)
class InversionFigure12(Study):
    """Single images deleted by a single gradient from models of CIFAR-10, whose releases are defended."""

    paper = "inversion paper, Figure 12"
    about = "images recovered behind fine-tuning"
    tables = (
        Table(
            "Figure 12",
            {**_ROWS, **_FREE},
            {"accuracy ratio": replace(RATIO, times=100.0), **COLUMNS},
            {},
        ),
    )
    curves = tuple(
        Curve(
            f"Figure 12, {name}",
            SETTINGS[name][1],
            "rank of the deleted image",
            {
                "defended": [(value, defended(name, value) | RANK) for value in SETTINGS[name][2]],
                "defended, and the attacker knows": [
                    (value, defended(name, value) | KNOWS) for value in SETTINGS[name][2]
                ],
                "placebo": [(value, defended(name, value, "placebo") | RANK) for value in SETTINGS[name][2]],
                "undefended": [(value, undefended(name, value) | RANK) for value in SETTINGS[name][2]],
            },
        )
        for name in _DEFENCES
    )
    claims = tuple(
        Claim(
            f"{name}: the strongest setting leaves images farther, by LPIPS, than the weakest",
            (
                (1.0, defended(name, SETTINGS[name][2][-1]) | LPIPS),
                (-1.0, defended(name, SETTINGS[name][2][0]) | LPIPS),
            ),
            above=0.0,
        )
        for name in _DEFENCES
    )
    notes = (
        "The paper says that its accuracy ratios lie between 35 % and 135 %, and prints no other number of this figure.",
        NO_LPIPS,
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {name: fields for defence in _DEFENCES for name, fields in audits(scale, defence).items()}
