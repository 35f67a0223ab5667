"""True positive rate at a low false positive rate (Carlini et al. 2022): what a confident attacker gets."""

from __future__ import annotations

import numpy as np

from palimpsest.measures.auc import roc
from palimpsest.types import Array


def tpr_at_fpr(positives: Array, negatives: Array, fpr: float = 0.01) -> float:
    """Largest true positive rate among thresholds whose false positive rate is at most `fpr`.

    With fewer than 1/fpr negatives no threshold short of zero false positives qualifies: then it is the rate at none.
    """
    false, true = roc(positives, negatives)
    return float(np.max(true[false <= fpr]))
