"""Beyond the inversion paper: deleted images, recovered after every other way of unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, FEATURES, NO_LPIPS, RANK, features
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

METHODS = (
    "retrain", "single_gradient", "finetune", "noisy_gradient_descent", "gradient_ascent", "negative_gradient", "random_label",
    "salun", "l1_sparse", "influence", "exact_unlearning_k", "catastrophic_forgetting_k", "scrub", "fisher", "ssd",
    "features_and_labels", "boundary_shrink",
)  # fmt: skip
"""Those that need no training of their own, and no validation records of what is forgotten."""
_PART = "one image each"


def _row(method: str, target: str = "unlearned") -> Where:
    return Where(_PART, target, method)


def _beyond(method: str) -> tuple[tuple[float, Where], ...]:
    return (1.0, _row(method) | RANK), (-1.0, _row(method, "placebo") | RANK)


@dataclass(frozen=True)
class InversionMethods(Study):
    """One image deleted at a time by each method at its defaults, from a fine-tuned model. Not in the paper.

    The attack takes the difference of two models for a gradient of the deleted records, which it is of a single gradient step;
    methods that train on what is kept move the weights elsewhere too.
    """

    paper = "beyond the inversion paper: its attack, after other methods"
    about = "single deleted images, recovered after each unlearning method"
    tables = (
        Table("Deleted images", {method: _row(method) for method in METHODS}, COLUMNS),
        Table("Deleted images: placebo", {method: _row(method, "placebo") for method in METHODS}, COLUMNS),
    )
    claims = (
        Claim("single_gradient: ranked higher than the placebo", _beyond("single_gradient"), above=0.0),
        Claim("gradient_ascent: ranked higher than the placebo", _beyond("gradient_ascent"), above=0.0),
        Claim("finetune: ranked less than 0.1 above the placebo", _beyond("finetune"), below=0.1),
    )
    notes = (NO_LPIPS,)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        count, seeds = (6, 2) if scale == "small" else (100, 3)
        search = {"settings": {FEATURES: {"iterations": 300}}} if scale == "small" else {}
        return {_PART: features(scale, forget=[f"random={count}/1"], unlearn=list(METHODS), seeds=seeds, **search)}
