"""The bias-matched control has the subject's median logit gap, and is the retrained model in all else."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.attack.residual.uma import Uma
from palimpsest.audit.controls import Shifted, gaps, matching_shift
from palimpsest.audit.policy import Policy
from palimpsest.learn.recipe import Recipe
from palimpsest.unlearn.finetune import Finetune
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import run


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


@given(seed=st.integers(0, 10_000), records=st.integers(3, 40))
def test_on_accuracy_as_many_are_right_and_no_further_than_that_asks(seed: int, records: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    control, subject = 3 * torch.randn(records, 5, generator=rng), torch.randn(records, 5, generator=rng) - 0.5
    targets = torch.full((records,), 2)
    by_gap = matching_shift(control, subject, targets, [2])
    shift = matching_shift(control, subject, targets, [2], "accuracy")

    def right(scores: torch.Tensor) -> int:
        return int((gaps(scores, targets) > 0).sum())

    assert right(control + shift) == right(subject)
    if right(control + by_gap) == right(subject):
        assert abs(shift[2] - by_gap[2]) <= 2e-3
    else:
        assert gaps(control + shift, targets).abs().min() <= 2e-3


def test_equal_gaps_cannot_be_told_apart() -> None:
    control, targets = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)
    subject = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [-1, 0, 0], [-1, 0, 0]])
    assert torch.isfinite(matching_shift(control, subject, targets, [0], "accuracy")).all()


def test_shifted_adds_constants_to_logits() -> None:
    inner = torch.nn.Linear(4, 3)
    x = torch.rand(5, 4)
    torch.testing.assert_close(
        Shifted(inner, torch.tensor([1.0, 0.0, -2.0]))(x), inner(x) + torch.tensor([1.0, 0.0, -2.0])
    )


def test_an_audit_may_match_controls_on_accuracy(tmp_path: Path) -> None:
    """With controls of the other kind in the same store."""

    def unattacked(matching: Literal["gap", "accuracy"]) -> dict[str, float]:
        done = run(
            tmp_path,
            out=matching,
            reported=False,
            policy=Policy(matching=matching),
            forget=("class=8",),
            unlearners=(Finetune(epochs=2, lr=0.05, batch_size=64),),
            recipe=Recipe(epochs=10, batch_size=32),
            attacks=(Uma(epsilon=(8 / 255,), steps=1, layout="contiguous"),),
            verifiers=(Accuracy(),),
        )
        return {
            cell.target: measure.value
            for cell in done.cells
            for measure in cell.measures
            if measure.name == "uma.forget_accuracy" and measure.at == {"epsilon": 0.0}
        }

    by_gap, by_accuracy = unattacked("gap"), unattacked("accuracy")
    assert by_gap["bias-matched"] != by_gap["unlearned"]
    assert by_accuracy["bias-matched"] == by_accuracy["unlearned"] == by_gap["unlearned"]
