"""Label inference from labels alone: a class whose region withdrew is named, and what the steps of HopSkipJump add."""

from __future__ import annotations

import copy
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from palimpsest.attack.leakage.label_only_inference import LabelOnlyInference
from palimpsest.case import Case
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import View
from palimpsest.types import ForgetRequest, Split


@pytest.fixture(scope="module")
def original(digits: Split, digits_task: Classification) -> Trained:
    torch.set_num_threads(1)
    train = digits.train.take(list(range(400)))
    return Plain().fit(digits_task, train, Recipe(epochs=8, batch_size=32, lr=0.05), Linear(), rng=Rng(0))


def moved(original: Trained, digits: Split, label: int, by: float) -> Case:
    """The class was made less likely everywhere, by hand: its bias is lowered."""
    after = copy.deepcopy(original.model)
    with torch.no_grad():
        cast(Tensor, list(after.parameters())[-1])[label] -= by
    some = digits.train.only(original.ids.tolist())
    request = ForgetRequest(some.take(np.flatnonzero(some.targets.numpy() == label)).ids, f"class={label}")
    return Case(digits, (request,), original, original.with_model(after))


def fell(attack: LabelOnlyInference, case: Case) -> tuple[Tensor, list[int], int]:
    """The drop of each class, the answer, and the queries of the probes."""
    made = attack.ready(View(attack.threat, case), rng=Rng(1))
    guess = attack.observe(View(attack.threat, case, made), rng=Rng(2))
    return guess.tensors["drop"], guess.tensors["answer"].tolist(), made.queries


@pytest.mark.parametrize("label", [0, 4, 9])
@pytest.mark.parametrize("steps", [0, 2])
def test_the_class_whose_bias_is_lowered_is_named(original: Trained, digits: Split, label: int, steps: int) -> None:
    drop, answer, _ = fell(LabelOnlyInference(steps=steps), moved(original, digits, label, 1.0))
    assert answer == [label]
    assert float(drop[label]) > 0
    others = torch.ones(10, dtype=torch.bool).index_fill(0, torch.tensor(label), False)
    assert float(drop[label]) > 2 * float(drop[others].max())


def test_the_class_whose_bias_is_raised_is_not(original: Trained, digits: Split) -> None:
    drop, answer, _ = fell(LabelOnlyInference(), moved(original, digits, 4, -1.0))
    assert float(drop[4]) < 0
    assert answer != [4]


def test_steps_cost_labels_and_move_the_probes(original: Trained, digits: Split) -> None:
    case = moved(original, digits, 4, 1.0)
    plain, stepped = (fell(LabelOnlyInference(steps=steps), case) for steps in (0, 2))
    assert stepped[2] > plain[2] + 100 * 50
    assert not torch.equal(plain[0], stepped[0])
