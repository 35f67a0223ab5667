"""What Figures 5 and 6 and Table 2 of the inversion paper share: few private images, each deleted alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.studies._inversion import features
from palimpsest.studies.base import Scale


def part(size: int) -> str:
    return f"{size} private images"


def audit(scale: Scale, size: int) -> Mapping[str, Any]:
    """A model fine-tuned on so few images; each of them is deleted alone, from each of three victims."""
    return features(scale, forget=[f"random={size}/1"], settings={"hub": {"private": size}})
