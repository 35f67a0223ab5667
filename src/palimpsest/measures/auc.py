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
    values = np.concatenate([positives, negatives])
    truth = np.concatenate([np.ones(len(positives)), np.zeros(len(negatives))])
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)  # a tie is one step of the curve
    true = np.cumsum(truth[order])[last] / len(positives)
    false = np.cumsum(1 - truth[order])[last] / len(negatives)
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])
