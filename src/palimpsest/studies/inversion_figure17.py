"""Figure 17 of the inversion paper: several images of one class deleted at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, METHODS, PICTURES, RANK, TWO_DISTANCES, features, paper, rows
from palimpsest.studies.base import Claim, Scale, Study, Table

_PART = "one class"
_ROWS = rows(_PART, kinds=["approximate"])


@dataclass(frozen=True)
class InversionFigure17(Study):
    """About eight images of a class deleted at once, for each of the first five classes alone.

    Requests name shares of a class: small, a sixth of about 50 private images; at the paper's scale, 8 of about 90 of CIFAR-100.
    """

    paper = "inversion paper, Figure 17"
    about = "images recovered where several of one class are deleted at once"
    tables = (Table("Figure 17", _ROWS, COLUMNS),)
    claims = (
        Claim(
            "images are ranked higher than the placebo",
            ((1.0, _ROWS["approximate unlearning"] | RANK), (-1.0, _ROWS["approximate: placebo"] | RANK)),
            above=0.0,
        ),
    )
    notes = (PICTURES, TWO_DISTANCES)
    pictured = (_PART,)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        share, classes = (0.16, range(3)) if scale == "small" else (0.09, range(5))
        changes = {"forget": [f"class={c}:{share}" for c in classes], "unlearn": [METHODS["approximate"]]}
        return {_PART: features(scale, **changes) if scale == "small" else paper("CIFAR-100", **changes)}
