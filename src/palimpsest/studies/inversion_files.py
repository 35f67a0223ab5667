"""Beyond the inversion paper: what the format of the two stored models leaves of a deletion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, FEATURES, METHODS, RANK, TWO_DISTANCES, at, features
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

FORMATS = ("float16", "bfloat16")
ADAPTIVE = "adaptive_inversion"
KNOWS = {
    "rank": at("rank", ADAPTIVE),
    "rank over mean colour": at("rank_over_colour", ADAPTIVE),
    "identified": at("identified_rate", ADAPTIVE),
    "MSE": at("root_mse", ADAPTIVE),
    "PSNR": at("psnr", ADAPTIVE),
}
"""Of an attacker who rounds the original alike before he takes the difference."""


def _stored(part: str, kind: str, target: str = "unlearned") -> Where:
    """As a short format keeps it; float32: undefended, of the first audit."""
    if part == "float32":
        return Where(FORMATS[0], target, METHODS[kind])
    return Where(part, target, f"{METHODS[kind]}+rounding")


def _rows(*parts: str) -> dict[str, Where]:
    every = [(kind, part) for kind in METHODS for part in parts]
    found = {f"{kind}, {part}": _stored(part, kind) for kind, part in every}
    return found | {f"{kind}, {part}: placebo": _stored(part, kind, "placebo") for kind, part in every}


@dataclass(frozen=True)
class InversionFiles(Study):
    """One image deleted at a time; the model after it is stored as float32, as float16 and as bfloat16. Not in the paper.

    The attacker has the original in float32, as it is or rounded like the other: weights that did not move far enough to be stored
    differently are then equal, and what rounding did to them is no part of the difference.
    """

    paper = "beyond the inversion paper: its attack, on other files"
    about = "single deleted images, recovered from models stored as float32, float16 and bfloat16"
    tables = (
        Table("Single deleted images, by the format of the model after deletion", _rows("float32", *FORMATS), COLUMNS),
        Table("The same, by an attacker who rounds the original alike", _rows(*FORMATS), KNOWS),
    )
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
                f"approximate, {part}, the original rounded alike: ranked less than 0.1 above the placebo",
                (
                    (1.0, _stored(part, "approximate") | KNOWS["rank"]),
                    (-1.0, _stored(part, "approximate", "placebo") | KNOWS["rank"]),
                ),
                below=0.1,
            )
            for part in FORMATS
        ),
    )
    notes = (
        "An attacker who has both models in a short format alone takes the same difference as one who rounds his float32 original, "
        "and searches at the rounded weights.",
        TWO_DISTANCES,
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        count, seeds = (6, 2) if scale == "small" else (100, 3)
        search = features(scale)["settings"][FEATURES]
        return {
            part: features(
                scale,
                forget=[f"random={count}/1"],
                defend=["rounding"],
                attack=[FEATURES, ADAPTIVE],
                seeds=seeds,
                settings={
                    "rounding": {"format": part},
                    ADAPTIVE: {**search, "defence": "rounding", "format": part},
                },
            )
            for part in FORMATS
        }
