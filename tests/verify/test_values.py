"""Each verifier's numbers against answers that were written down by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest.case import Case
from palimpsest.learn.base import Trained
from palimpsest.task import Classification
from palimpsest.types import Examples, ForgetRequest, Measure, Split
from palimpsest.verify.accuracy import Accuracy
from palimpsest.verify.relearn_time import RelearnTime
from palimpsest.verify.retrain_gap import RetrainGap
from palimpsest.verify.robust_unlearning import RobustUnlearning

TRUTH = [0, 0, 1, 1, 1, 2, 0, 1, 1, 2]  # records 0 … 5 are trained on, 6 … 9 are test records
FORGOTTEN = ["r0", "r1"]  # all of class 0, so test record 6 is held out and 7, 8, 9 are test


class Table(nn.Module):
    """Answers record i with row i of its table of posteriors."""

    def __init__(self, posteriors: list[list[float]]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(posteriors).clamp_min(1e-30).log())

    def forward(self, x: Tensor) -> Tensor:
        return self.table[x[:, 0].long()]


def says(classes: list[int]) -> list[list[float]]:
    return [[1.0 if c == label else 0.0 for c in range(3)] for label in classes]


def case(original: list[list[float]], subject: list[list[float]], *controls: list[list[float]]) -> Case:
    inputs = {"x": torch.arange(10.0)[:, None]}
    records = Examples.of(inputs, torch.tensor(TRUTH), [f"r{i}" for i in range(10)])
    low, high = torch.tensor(0.0), torch.tensor(9.0)
    train, test = records.take(list(range(6))), records.take([6, 7, 8, 9])
    split = Split("hand", "table", train, records.take([]), test, ("a", "b", "c"), "f", (low, high))
    task = Classification(3, (1,), (0.0,), (1.0,), (low, high), "x")
    models = [Trained(Table(rows).eval(), task, train.ids) for rows in (original, subject, *controls)]
    request = ForgetRequest(np.array(FORGOTTEN), "class=0")
    return Case(split, (request,), models[0], models[1], controls=tuple(models[2:]))


def measured(verifier, situation: Case) -> dict[str, Measure]:
    return {measure.name: measure for measure in verifier.measure(verifier.verify(situation))}


def values(verifier, situation: Case) -> dict[str, float]:
    return {name: measure.value for name, measure in measured(verifier, situation).items()}


def test_accuracies_of_each_group() -> None:
    right = list(TRUTH)
    subject = [1, 0, 1, 1, 0, 2, 1, 1, 2, 0]  # forget 1/2, retain 3/4, held out 0/1, test 1/3
    found = values(Accuracy(), case(says(right), says(subject)))
    assert found == pytest.approx(
        {"forget_accuracy": 1 / 2, "retain_accuracy": 3 / 4, "heldout_accuracy": 0, "test_accuracy": 1 / 3,
         "train_accuracy": 4 / 6}
    )  # fmt: skip


def test_accuracy_on_some_records_of_each_group_is_what_it_is_of_these() -> None:
    situation = case(says(TRUTH), [[0.2, 0.5, 0.3]] * 10)
    whole, some = Accuracy().verify(situation), Accuracy(records=2).verify(situation)
    of = dict(
        zip(whole.ids.tolist(), zip(whole["group"], whole["correct"], whole["confidence"], strict=True), strict=True)
    )
    assert np.unique(some["group"], return_counts=True)[1].tolist() == [2, 2, 2, 1]
    for name, *told in zip(some.ids.tolist(), some["group"], some["correct"], some["confidence"], strict=True):
        assert tuple(told) == of[name]


def test_expectations_of_equations_1_and_2() -> None:
    """Forget records turned round (√2 and 0), of four retain records one moved by (0.3, 0.3, 0) of posterior."""
    before = says(TRUTH)
    after = says([1, *TRUTH[1:]])
    after[2] = [0.3, 0.7, 0.0]
    found = values(RobustUnlearning(), case(before, after))
    assert found["robust_unlearning.forget_distance"] == pytest.approx(2**0.5 / 2)
    assert found["robust_unlearning.retain_distance"] == pytest.approx(0.3 * 2**0.5 / 4)


def test_gaps_of_opposite_sign_do_not_cancel() -> None:
    """Retain 1/4 above the two controls' mean of 3/4, forget 1/2 below theirs of 1/2; test the same: (1/4 + 1/2 + 0)/3."""
    subject = [1, 1, 1, 1, 1, 2, 0, 1, 1, 2]
    control = [0, 1, 1, 1, 0, 2, 0, 1, 1, 2]
    other = [1, 0, 1, 0, 1, 2, 0, 1, 1, 2]
    found = values(RetrainGap(), case(says(TRUTH), says(subject), says(control), says(other)))
    assert found["retrain_gap.accuracy"] == pytest.approx((1 / 4 + 1 / 2) / 3)
    assert found["retrain_gap.js_divergence_forget"] == pytest.approx(math.log(2) / 2)
    assert found["retrain_gap.js_divergence_retain"] == pytest.approx(math.log(2) / 4)
    assert found["retrain_gap.js_divergence_test"] == pytest.approx(0)


def by_hand(table: np.ndarray, targets: list[int], lr: float, steps: int) -> list[list[bool]]:
    """Which records are right after 0, 1, … steps of SGD on their mean cross-entropy, each having logits of its own."""
    looks = [(table.argmax(1) == targets).tolist()]
    for _ in range(steps):
        posterior = np.exp(table) / np.exp(table).sum(1, keepdims=True)
        table = table - lr * (posterior - np.eye(3)[targets]) / len(targets)
        looks.append((table.argmax(1) == targets).tolist())
    return looks


@pytest.mark.parametrize("every", [1, 3])
def test_relearning_is_seen_at_the_first_look_after_which_a_record_stays_right(every: int) -> None:
    """Record 0 starts close, record 1 far off; one more is never learnt within 12 steps."""
    posteriors = says(TRUTH)
    posteriors[0], posteriors[1] = [0.3, 0.6, 0.1], [0.02, 0.9, 0.08]
    situation = case(says(TRUTH), posteriors)
    looks = by_hand(np.log(np.array(posteriors[:2], dtype=float)), [0, 0], 1.0, 12)
    expected = []
    for record in range(2):
        right = [looks[step][record] for step in range(0, 13, every)]
        seen = [index for index in range(len(right)) if all(right[index:])]
        expected.append((seen[0] if seen else len(right)) * every)
    verifier = RelearnTime(lr=1.0, steps=12, every=every)
    scores = verifier.verify(situation)
    assert scores["relearned_at"].tolist() == expected
    assert expected[0] < expected[1]
    found = {measure.name: measure.value for measure in verifier.measure(scores)}
    assert found["relearn_time.steps"] == pytest.approx(np.mean(expected))
    assert found["relearn_time.relearned"] == pytest.approx(np.mean(np.array(expected) <= 12))


def test_one_record_is_relearnt_by_a_model_with_batch_norm() -> None:
    """One record in a batch gives batch norm no statistics of its own."""
    situation = case(says(TRUTH), says(TRUTH))
    body = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).eval()
    one = ForgetRequest(np.array(["r0"]), "ids")
    subject = Trained(body, situation.task, situation.split.train.ids)
    alone = Case(situation.split, (one,), situation.original, subject)
    assert len(RelearnTime(steps=4).verify(alone)["relearned_at"]) == 1
