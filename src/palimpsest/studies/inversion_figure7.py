"""Figure 7 of the inversion paper: how near recovered images come against the epochs of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import (
    COLUMNS,
    DISTANCES,
    METHODS,
    MSE,
    PICTURES,
    RANK,
    TWO_DISTANCES,
    VICTIM,
    features,
    rows,
)
from palimpsest.studies.base import Claim, Curve, Scale, Study, Table, Where

EPOCHS = {"1 epoch": 1, "2 epochs": 2, "3 epochs": 3}


def _method(part: str, kind: str) -> Where:
    return Where(part, "unlearned", METHODS[kind])


@dataclass(frozen=True)
class InversionFigure7(Study):
    """One image deleted at a time, after one to three epochs of fine-tuning. The figure's points are not printed as numbers."""

    paper = "inversion paper, Figure 7"
    about = "distances of recovered images against the epochs of fine-tuning"
    tables = tuple(Table(f"Figure 7: {part}", rows(part), COLUMNS) for part in EPOCHS)
    curves = tuple(
        Curve(
            f"Figure 7, {name}",
            "epochs of fine-tuning",
            name,
            {
                f"{kind} unlearning": [(float(n), _method(part, kind) | where) for part, n in EPOCHS.items()]
                for kind in METHODS
            },
            share=name != "PSNR",
        )
        for name, where in {**DISTANCES, "rank": RANK}.items()
    )
    claims = tuple(
        Claim(
            f"{kind} unlearning: images are farther, by MSE, after three epochs than after one",
            ((1.0, _method("3 epochs", kind) | MSE), (-1.0, _method("1 epoch", kind) | MSE)),
            above=0.0,
        )
        for kind in METHODS
    )
    notes = (PICTURES, TWO_DISTANCES)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        forget = ["random=12/1"] if scale == "small" else ["random=34/1"]
        return {
            part: features(scale, forget=forget, recipe={**VICTIM["recipe"], "epochs": epochs})
            for part, epochs in EPOCHS.items()
        }
