"""Figure 6 of the inversion paper: how near recovered images come against the number of private ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._few import BATCH, audit, part
from palimpsest.studies._inversion import (
    COLUMNS,
    DISTANCES,
    METHODS,
    MSE,
    PERCEPTUAL,
    PICTURES,
    RANK,
    TWO_DISTANCES,
    rows,
)
from palimpsest.studies.base import Claim, Curve, Scale, Study, Table, Where

SIZES = (4, 8, 16)


def _method(size: int, kind: str) -> Where:
    return Where(part(size), "unlearned", METHODS[kind])


@dataclass(frozen=True)
class InversionFigure6(Study):
    """Fine-tuned on 4, 8 and 16 images, each deleted alone. The figure's points are not printed as numbers."""

    paper = "inversion paper, Figure 6"
    about = "distances of recovered images against the number of private ones"
    tables = tuple(Table(f"Figure 6: {part(size)}", rows(part(size)), COLUMNS) for size in SIZES)
    curves = tuple(
        Curve(
            f"Figure 6, {name}",
            "private images",
            name,
            {f"{kind} unlearning": [(float(size), _method(size, kind) | where) for size in SIZES] for kind in METHODS},
            share=name != "PSNR",
        )
        for name, where in {**DISTANCES, "rank": RANK}.items()
    )
    claims = (
        *(
            Claim(
                f"{kind} unlearning: images are not farther with 16 than with 4 private ones, by 0.05 of MSE or more",
                ((1.0, _method(16, kind) | MSE), (-1.0, _method(4, kind) | MSE)),
                below=0.05,
            )
            for kind in METHODS
        ),
        Claim(
            "8 images: approximate unlearning gives more away than exact, by the perceptual distance",
            ((1.0, _method(8, "exact") | PERCEPTUAL), (-1.0, _method(8, "approximate") | PERCEPTUAL)),
            above=0.0,
        ),
    )
    notes = (
        PICTURES,
        TWO_DISTANCES,
        BATCH,
        "The paper draws ten sets of each size; here each image of one set is deleted, from three victims.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {part(size): audit(scale, size) for size in SIZES}
