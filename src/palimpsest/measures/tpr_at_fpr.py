"""True positive rate at a low false positive rate (Carlini et al. 2022): what a confident attacker gets."""

from __future__ import annotations

from typing import Any

import numpy as np

from palimpsest.types import Array


def tpr_at_fpr(positives: Array, negatives: Array, fpr: float = 0.01) -> Any:
    """Largest true positive rate among thresholds whose false positive rate is at most `fpr`.

    Scores are along the last axis, (…, positives) and (…, negatives) → (…). With fewer than 1/fpr negatives no threshold short of
    zero false positives qualifies: then it is the rate at none.
    """
    values = np.concatenate([positives, negatives], axis=-1)
    order = np.argsort(-values, axis=-1, kind="stable")
    positive = order < positives.shape[-1]
    falling = np.take_along_axis(values, order, axis=-1)
    last = np.ones(falling.shape, dtype=bool)  # a tie is one step of the curve
    last[..., :-1] = falling[..., 1:] != falling[..., :-1]
    true = np.cumsum(positive, axis=-1) / positives.shape[-1]
    false = np.cumsum(~positive, axis=-1) / negatives.shape[-1]
    return np.max(np.where(last & (false <= fpr), true, 0.0), axis=-1)
