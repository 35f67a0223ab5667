"""Figure 11 of the inversion paper: images recovered behind parameter noise and pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from palimpsest.studies._defended import KNOWS, RATIO, SETTINGS, audits, defended, part, undefended
from palimpsest.studies._inversion import COLUMNS, LPIPS, NO_LPIPS, RANK
from palimpsest.studies.base import Claim, Curve, Scale, Study, Table

_DEFENCES = ("parameter obfuscation", "model pruning")
_ROWS = {part(name, value): defended(name, value) for name in _DEFENCES for value in SETTINGS[name][2]}
_FREE = {
    f"{part(name, value)}, undefended": undefended(name, value) for name in _DEFENCES for value in SETTINGS[name][2]
}
_PRINTED = {
    "σ 0.001": (99.13,),
    "σ 0.003": (96.37,),
    "σ 0.005": (90.64,),
    "σ 0.007": (84.71,),
    "p 0.7": (95.01,),
    "p 0.8": (77.81,),
    "p 0.9": (43.83,),
}
"""Ratios of validation accuracy, per cent (section 7)."""


@dataclass(frozen=True)
class InversionFigure11(Study):
    """Single images deleted by a single gradient from models of CIFAR-10, whose releases are defended."""

    paper = "inversion paper, Figure 11"
    about = "images recovered behind parameter noise and pruning"
    tables = (
        Table(
            "Figure 11",
            {**_ROWS, **_FREE},
            {"accuracy ratio": replace(RATIO, times=100.0), **COLUMNS},
            _PRINTED,
        ),
    )
    curves = tuple(
        Curve(
            f"Figure 11, {name}",
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
        "The ratios are those of section 7, which has 93.14 % for σ = 0.005 too; Table 4 has others.",
        NO_LPIPS,
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {name: fields for defence in _DEFENCES for name, fields in audits(scale, defence).items()}
