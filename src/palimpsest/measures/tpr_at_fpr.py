"""True positive rate at a low false positive rate (Carlini et al. 2022): what a confident attacker gets."""

from __future__ import annotations

from typing import Any

import numpy as np

from palimpsest.measures.auc import steps
from palimpsest.types import Array


def tpr_at_fpr(positives: Array, negatives: Array, fpr: float = 0.01) -> Any:
    """Largest true positive rate among thresholds whose false positive rate is at most `fpr`.

    Scores are along the last axis, (…, positives) and (…, negatives) → (…). With fewer than 1/fpr negatives no threshold short of
    zero false positives qualifies: then it is the rate at none.
    """
    false, true, last = steps(positives, negatives)
    return np.max(np.where(last & (false <= fpr), true, 0.0), axis=-1)
