"""Inversion of one model: it reaches what the model is sure of, and knows nothing of a deletion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from palimpsest.attack.leakage.model_inversion import ModelInversion
from palimpsest.case import Case
from palimpsest.learn.base import Trained
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import View
from palimpsest.types import ForgetRequest, Split

CLASSES = [0, 3, 3, 8]


@pytest.fixture
def case(digits_mlp: nn.Module, digits: Split, digits_task: Classification) -> Case:
    places = [int(np.flatnonzero(digits.train.targets.numpy() == label)[turn]) for turn, label in enumerate(CLASSES)]
    request = ForgetRequest(digits.train.take(places).ids, "some")
    trained = Trained(digits_mlp, digits_task, digits.train.ids)
    return Case(digits, (request,), trained, trained)


def test_confidence_in_the_class_rises(case: Case, digits_mlp: nn.Module, digits_task: Classification) -> None:
    attack = ModelInversion(iterations=100)
    guess = attack.observe(View(attack.threat, case), rng=Rng(0))
    drawn, labels = guess.tensors["recovered"], guess.tensors["labels"]
    assert sorted(labels.tolist()) == CLASSES
    with torch.no_grad():
        grey = digits_mlp(torch.full((1, *digits_task.shape), 0.5)).softmax(1)[0]
        sure = digits_mlp(drawn).softmax(1).gather(1, labels[:, None]).flatten()
    assert bool((sure > grey[labels]).all())
    assert float(sure.min()) > 0.9
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1


def test_records_of_one_class_get_one_answer(case: Case) -> None:
    attack = ModelInversion(iterations=20)
    guess = attack.observe(View(attack.threat, case), rng=Rng(0))
    drawn, labels = guess.tensors["recovered"], guess.tensors["labels"]
    threes = drawn[labels == 3]
    assert torch.equal(threes[0], threes[1])
    assert not torch.equal(threes[0], drawn[labels == 8][0])


def test_more_steps_lower_its_own_loss_and_the_second_model_is_not_looked_at(case: Case) -> None:
    short, long = (
        attack.observe(View(attack.threat, case), rng=Rng(0)).info["loss"]
        for attack in (ModelInversion(iterations=2), ModelInversion(iterations=100))
    )
    assert long < short
    assert ModelInversion().threat.models == "before"
    attack = ModelInversion(iterations=2)
    other = replace(case.original, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    again = attack.observe(View(attack.threat, replace(case, subject=other)), rng=Rng(0))
    assert again.info["loss"] == short
