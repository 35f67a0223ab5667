"""The bias-matched control has the subject's median logit gap, and is the retrained model in all else."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.audit.controls import Shifted, gaps, matching_shift


def test_gap_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert gaps(scores, torch.tensor([0, 2])).tolist() == [1.0, -4.0]


@given(seed=st.integers(0, 10_000), records=st.integers(3, 40))
def test_one_class_is_matched_exactly(seed: int, records: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    control, subject = torch.randn(records, 5, generator=rng), torch.randn(records, 5, generator=rng)
    targets = torch.full((records,), 2)
    shift = matching_shift(control, subject, targets, [2])
    assert torch.equal(shift[[0, 1, 3, 4]], torch.zeros(4))
    torch.testing.assert_close(gaps(control + shift, targets).median(), gaps(subject, targets).median())


def test_two_classes_settle() -> None:
    rng = torch.Generator().manual_seed(0)
    control, subject = torch.randn(60, 6, generator=rng), 2 * torch.randn(60, 6, generator=rng) + 1
    targets = torch.arange(60) % 2
    shift = matching_shift(control, subject, targets, [0, 1], sweeps=50)
    for c in (0, 1):
        mine = targets == c
        matched, wanted = (
            gaps(control[mine] + shift, targets[mine]).median(),
            gaps(subject[mine], targets[mine]).median(),
        )
        torch.testing.assert_close(matched, wanted, atol=1e-2, rtol=0)


def test_shifted_adds_constants_to_logits() -> None:
    inner = torch.nn.Linear(4, 3)
    x = torch.rand(5, 4)
    torch.testing.assert_close(
        Shifted(inner, torch.tensor([1.0, 0.0, -2.0]))(x), inner(x) + torch.tensor([1.0, 0.0, -2.0])
    )
