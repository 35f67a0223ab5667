"""What Figures 5 and 6 and Table 2 of the inversion paper share: few private images, each deleted alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.studies._inversion import METHODS, features
from palimpsest.studies.base import Scale

BATCH = (
    "Eq. 13 divides by the batch size of fine-tuning, which is 128 by the letter. The only batch here is all private images, of "
    "which fine-tuning took the mean: single_gradient divides by as many as there are."
)
"""A note of the studies."""


def part(size: int) -> str:
    return f"{size} private images"


def audit(scale: Scale, size: int) -> Mapping[str, Any]:
    """A model fine-tuned on so few images; each of them is deleted alone, from each of three victims."""
    settings = {"hub": {"private": size}, METHODS["approximate"]: {"batch_size": size}}
    return features(scale, forget=[f"random={size}/1"], settings=settings)
