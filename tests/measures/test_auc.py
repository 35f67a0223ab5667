"""ROC curves against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from palimpsest.measures.auc import auc, roc
from palimpsest.measures.tpr_at_fpr import tpr_at_fpr


def groups(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positives, negatives = rng.normal(0.5, 1, 37), rng.normal(0, 1, 53)
    return (positives.round(), negatives.round()) if ties else (positives, negatives)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_area_and_curve_agree_with_scikit_learn(seed: int, ties: bool) -> None:
    positives, negatives = groups(seed, ties)
    truth = np.r_[np.ones(len(positives)), np.zeros(len(negatives))]
    values = np.r_[positives, negatives]
    assert auc(positives, negatives) == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    false, true = roc(positives, negatives)
    expected_false, expected_true, _ = roc_curve(truth, values, drop_intermediate=False)
    np.testing.assert_allclose(false, expected_false, atol=1e-12)
    np.testing.assert_allclose(true, expected_true, atol=1e-12)
    assert np.trapezoid(true, false) == pytest.approx(auc(positives, negatives), abs=1e-12)


def test_known_areas() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([0.0]), np.array([1.0, 2.0])) == 0.0
    assert auc(np.ones(5), np.ones(7)) == 0.5
    assert auc(np.array([1.0, 3.0]), np.array([2.0, 0.0])) == 0.75


def test_true_positive_rate_by_hand() -> None:
    """Thresholds from the top: 9 (tp), 8 (tp), 7 (fp), 6 (tp), 5 (fp), 4 (tp)."""
    positives, negatives = np.array([9.0, 8.0, 6.0, 4.0]), np.array([7.0, 5.0, 1.0, 0.0])
    assert tpr_at_fpr(positives, negatives, 0.0) == 0.5
    assert tpr_at_fpr(positives, negatives, 0.24) == 0.5
    assert tpr_at_fpr(positives, negatives, 0.25) == 0.75
    assert tpr_at_fpr(positives, negatives, 0.5) == 1.0


def test_a_tie_cannot_be_split_to_the_attackers_gain() -> None:
    assert tpr_at_fpr(np.array([1.0, 1.0, 2.0]), np.array([1.0] + [0.0] * 99), 0.0) == pytest.approx(1 / 3)
    assert tpr_at_fpr(np.ones(4), np.ones(4), 0.5) == 0.0


def test_few_negatives_allow_none_of_them() -> None:
    """With ten negatives one of them is already ten per cent: the rate is that at no false positive."""
    positives, negatives = np.array([5.0, 3.0]), np.r_[4.0, np.zeros(9)]
    assert tpr_at_fpr(positives, negatives, 0.01) == 0.5
    assert tpr_at_fpr(positives, negatives, 0.1) == 1.0
