"""Figure 16 of the inversion paper: with and without knowing the labels of what was deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import (
    COLUMNS,
    FEATURES,
    METHODS,
    PICTURES,
    RANK,
    TWO_DISTANCES,
    at,
    features,
    paper,
    rows,
)
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

LABELS = {"labels known": "known", "labels optimised": "optimised", "labels read off": "gradient"}


_COLUMNS = {**COLUMNS, "labels right": at("label_right_rate")}


def _method(part: str) -> Where:
    return Where(part, "unlearned", METHODS["approximate"])


@dataclass(frozen=True)
class InversionFigure16(Study):
    """Eight images deleted at once by a single gradient: labels known, optimised along with the images, or read off the gradient.

    The paper's data are CIFAR-100; small: CIFAR-10. That the labels are read off the last layer is not in its figure.
    """

    paper = "inversion paper, Figure 16"
    about = "images recovered with and without their labels"
    tables = tuple(
        Table(
            f"Figure 16: {part}", rows(part, kinds=["approximate"]), {**COLUMNS, "labels right": at("label_right_rate")}
        )
        for part in LABELS
    )
    claims = (
        Claim(
            "images are ranked no lower where labels are optimised, up to 0.1",
            ((1.0, _method("labels optimised") | RANK), (-1.0, _method("labels known") | RANK)),
            above=-0.1,
        ),
    )
    notes = (PICTURES, TWO_DISTANCES)
    pictured = tuple(LABELS)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        changes = {"forget": ["random=16/8"], "unlearn": [METHODS["approximate"]]}
        return {
            part: features(scale, **changes, settings={FEATURES: {"labels": labels}})
            if scale == "small"
            else paper("CIFAR-100", **changes, settings={FEATURES: {"labels": labels}})
            for part, labels in LABELS.items()
        }
