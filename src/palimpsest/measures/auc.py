"""How well one number tells members from non-members: area under the ROC curve, and its low-error end."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from palimpsest.types import Array


def auc(positives: Array, negatives: Array) -> Any:
    """Probability that a positive scores above a negative, ties counted half (Mann–Whitney). 0.5 is chance.

    Scores are along the last axis, (…, positives) and (…, negatives) → (…).
    """
    ranks = rankdata(np.concatenate([positives, negatives], axis=-1), axis=-1)
    p, n = positives.shape[-1], negatives.shape[-1]
    return (ranks[..., :p].sum(-1) - p * (p + 1) / 2) / (p * n)


def roc(positives: Array, negatives: Array) -> tuple[Array, Array]:
    """False and true positive rates over all thresholds, highest threshold first, from (0, 0) to (1, 1)."""
    false, true, last = steps(positives, negatives)
    return np.concatenate([[0.0], false[last]]), np.concatenate([[0.0], true[last]])


def steps(positives: Array, negatives: Array) -> tuple[Array, Array, Array]:
    """False and true positive rates with one more score above the threshold at a time, and where a threshold can lie: after the
    last of equal scores. Scores (…, positives) and (…, negatives) → three of (…, positives + negatives)."""
    values = np.concatenate([positives, negatives], axis=-1)
    order = np.argsort(-values, axis=-1, kind="stable")
    positive = order < positives.shape[-1]
    falling = np.take_along_axis(values, order, axis=-1)
    last = np.ones(falling.shape, dtype=bool)  # a tie is one step of the curve
    last[..., :-1] = falling[..., 1:] != falling[..., :-1]
    true = np.cumsum(positive, axis=-1) / positives.shape[-1]
    false = np.cumsum(~positive, axis=-1) / negatives.shape[-1]
    return false, true, last
