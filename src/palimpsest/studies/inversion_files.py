"""Beyond the inversion paper: what the format of the two stored models leaves of a deletion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, METHODS, NO_LPIPS, RANK, features
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

FORMATS = ("float16", "bfloat16")


def _stored(part: str, kind: str, target: str = "unlearned") -> Where:
    """As a short format keeps it; float32: undefended, of the first audit."""
    if part == "float32":
        return Where(FORMATS[0], target, METHODS[kind])
    return Where(part, target, f"{METHODS[kind]}+rounding")


def _rows() -> dict[str, Where]:
    every = [(kind, part) for kind in METHODS for part in ("float32", *FORMATS)]
    found = {f"{kind}, {part}": _stored(part, kind) for kind, part in every}
    return found | {f"{kind}, {part}: placebo": _stored(part, kind, "placebo") for kind, part in every}


@dataclass(frozen=True)
class InversionFiles(Study):
    """One image deleted at a time; the model after it is stored as float32, as float16 and as bfloat16. Not in the paper."""

    paper = "beyond the inversion paper: its attack, on other files"
    about = "single deleted images, recovered from models stored as float32, float16 and bfloat16"
    tables = (Table("Single deleted images, by the format of the model after deletion", _rows(), COLUMNS),)
    claims = (
        Claim(
            "approximate, float32: ranked higher than the placebo, by 0.1 or more",
            (
                (1.0, _stored("float32", "approximate") | RANK),
                (-1.0, _stored("float32", "approximate", "placebo") | RANK),
            ),
            above=0.1,
        ),
        *(
            Claim(
                f"approximate, {part}: ranked less than 0.1 above the placebo",
                ((1.0, _stored(part, "approximate") | RANK), (-1.0, _stored(part, "approximate", "placebo") | RANK)),
                below=0.1,
            )
            for part in FORMATS
        ),
    )
    notes = ("The original is kept in float32: an attacker with both in a short format sees less.", NO_LPIPS)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        count, seeds = (10, 2) if scale == "small" else (100, 3)
        return {
            part: features(
                scale,
                forget=[f"random={count}/1"],
                defend=["rounding"],
                seeds=seeds,
                settings={"rounding": {"format": part}},
            )
            for part in FORMATS
        }
