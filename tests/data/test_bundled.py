"""The data sets that scikit-learn brings."""

from __future__ import annotations

import pytest

from palimpsest.data.base import Dataset
from palimpsest.data.breast_cancer import BreastCancer
from palimpsest.data.digits import Digits


@pytest.mark.parametrize(
    ("data", "mark"),
    [
        (Digits(), "089ad4db2ea9e197415e44d5300a7951488a73c73bd71cdbe8776c4aa0b876e8"),
        (BreastCancer(), "f80a0970bdaac5ed330e0032e16797a04d5186aea6783613b394381e9140b31d"),
    ],
)
def test_the_same_contents_every_time_and_everywhere(offline: None, data: Dataset, mark: str) -> None:
    assert data.load().fingerprint == data.load().fingerprint == mark


def test_digits_are_bytes_and_cancer_keeps_its_units() -> None:
    digits, cancer = Digits(limit=200).load(), BreastCancer().load()
    assert digits.train.raw("image").max() == 255
    assert (digits.kind, digits.shape, len(digits.classes)) == ("image", (1, 8, 8), 10)
    assert (cancer.kind, cancer.shape, cancer.classes) == ("features", (30,), ("malignant", "benign"))
    assert cancer.domain[1].max() > 1000
