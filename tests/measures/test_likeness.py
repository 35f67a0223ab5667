"""Likeness and recovery by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palimpsest.measures.intervals import centred, statistic
from palimpsest.measures.likeness import likeness, recovery


def flat(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def test_from_the_fill_to_the_same() -> None:
    where = torch.ones(5, 1, 2, 2, dtype=torch.bool)
    drawn, wanted = flat(0.2, 0.4, 0.6, 0.0, 0.8), flat(*[0.6] * 5)
    found = likeness(drawn, wanted, flat(*[0.2] * 5), where)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 1.0, 0.0, 0.5], dtype=torch.float64), atol=1e-6, rtol=0)


def test_only_hidden_pixels_count() -> None:
    where = torch.tensor([[[[True, False], [False, False]]]])
    drawn, wanted, fill = flat(0.5), flat(1.0), flat(0.0)
    drawn[0, 0, 1, 1] = 0.9
    assert likeness(drawn, wanted, fill, where).item() == pytest.approx(0.5)


def test_an_image_that_is_its_fill_is_no_division_by_zero() -> None:
    where = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    found = likeness(flat(0.5, 0.5 + 0.5 / 255), flat(0.5, 0.5), flat(0.5, 0.5), where)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5], dtype=torch.float64), atol=1e-4, rtol=0)


def test_recovery_is_a_share_of_the_retain_sets() -> None:
    assert recovery(np.array([0.2, 0.4]), np.array([0.5, 0.7])) == pytest.approx(0.5)
    assert recovery(np.array([0.9]), np.array([0.5])) == 1.0
    assert recovery(np.array([0.01]), np.array([0.0])) == pytest.approx(0.2)  # of the floor, 0.05


def test_centred_replicates_have_the_value_in_their_middle() -> None:
    values = np.random.default_rng(0).normal(size=40)
    biased = statistic("spread", lambda x: float(len(np.unique(x)) + x.mean()), values)
    assert not biased.low <= biased.value <= biased.high
    mended = centred(biased)
    assert mended.low <= mended.value <= mended.high
    assert mended.replicates is not None
    assert mended.replicates.mean() == pytest.approx(mended.value)
    assert mended.high - mended.low == pytest.approx(biased.high - biased.low)
