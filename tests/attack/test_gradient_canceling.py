"""Gradient canceling: weights moved within a ball, records that hold them there, and what a victim loses by it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from palimpsest.attack.poisoning.gradient_canceling import GradientCanceling, _length, _loss, _summed
from palimpsest.case import Case
from palimpsest.forget.selection import select
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import Ground, TrainingView
from palimpsest.types import Examples, ForgetRequest, Split

RECIPE, FACTORY = Recipe(epochs=15, batch_size=64), Mlp(width=64, layers=2)


def view(digits: Split, task: Classification, request: ForgetRequest) -> TrainingView:
    own = digits.train.only(request.ids.tolist())

    def fit(examples: Examples, rng: Rng, share: float) -> Trained:
        return Plain().fit(task, examples, RECIPE, FACTORY, rng=rng)

    return TrainingView(GradientCanceling.threat, Ground(digits, own, task, RECIPE, FACTORY, fit))


def test_weights_are_moved_within_the_ball_to_a_higher_loss(digits: Split, digits_task: Classification) -> None:
    torch.set_num_threads(1)
    model = Plain().fit(digits_task, digits.train, RECIPE, FACTORY, rng=Rng(0)).model.eval()
    before = copy.deepcopy(model.state_dict())
    for radius in (0.1, 0.5):
        moved = GradientCanceling(radius=radius, corruption=30)._corrupted(model, digits_task, digits.train)
        away = [a.detach() - b.detach() for a, b in zip(moved.parameters(), model.parameters(), strict=True)]
        assert float(_length(away)) == pytest.approx(radius, rel=1e-3)
        assert _loss(moved, digits_task, digits.train) > 1.5 * _loss(model, digits_task, digits.train)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("epsilon", [1.0, 16 / 255, 0.05])
def test_records_keep_their_labels_and_range_and_cancel_the_gradient(
    epsilon: float, digits: Split, digits_task: Classification
) -> None:
    torch.set_num_threads(1)
    request = select("random=0.2", digits.train, digits.classes, rng=Rng(0))
    shown = view(digits, digits_task, request)
    attack = GradientCanceling(epsilon=epsilon, iterations=60, corruption=20)
    found = attack.prepare(shown, rng=Rng(0))
    (values,), clean = found.inputs.values(), shown.own.batch()
    change = (values - clean.inputs[digits_task.attacked_input]).abs()
    assert float(change.max()) <= epsilon + 1e-6, "also once rounded to bytes: 12 of 255 for ε = 0.05"
    assert float(found.kept["change"]) == pytest.approx(float(change.max()))
    assert torch.allclose(values * 255, (values * 255).round(), atol=1e-3)
    assert float(values.min()) >= 0
    assert float(values.max()) <= 1
    assert torch.equal(found.targets, clean.targets)
    first, last = found.kept["residual"].tolist()
    assert last < first - 0.02
    assert torch.equal(attack.prepare(shown, rng=Rng(0)).inputs[digits_task.attacked_input], values)


def test_the_residual_is_that_of_the_records_that_are_handed_in(digits: Split, digits_task: Classification) -> None:
    """Taken again, first and last, from the records as they were and as they are handed in, rounded to bytes."""
    torch.set_num_threads(1)
    request = select("random=0.2", digits.train, digits.classes, rng=Rng(1))
    shown = view(digits, digits_task, request)
    attack = GradientCanceling(iterations=60, corruption=20)
    found = attack.prepare(shown, rng=Rng(3))
    others = shown.know("others")
    model = shown.fit(Examples.joined([others, shown.own]), Rng(3).child("surrogate"))
    there = attack._corrupted(model, digits_task, others)
    wanted = _summed(there, digits_task, others.batches(256))
    poisons = digits.train.altered(found.ids, found.inputs, found.targets).only(found.ids.tolist())
    for records, told in zip((shown.own, poisons), found.kept["residual"].tolist(), strict=True):
        rest = [a + b for a, b in zip(wanted, _summed(there, digits_task, records.batches(256)), strict=True)]
        assert float(_length(rest) / _length(wanted)) == pytest.approx(told, rel=1e-4)


def test_a_step_goes_down_the_length_of_the_whole_gradient(digits: Split, digits_task: Classification) -> None:
    """Beside an objective in float64, written apart: ‖Σ_others ∇ℓ + Σ_own ∇ℓ‖² over every tensor of a model of two layers."""
    torch.set_num_threads(1)
    model = Plain().fit(digits_task, digits.train, Recipe(epochs=2), FACTORY, rng=Rng(0)).model.eval()
    others, own = digits.train.take(list(range(100, 300))), digits.train.take(list(range(20)))
    name, double = digits_task.attacked_input, copy.deepcopy(model).double()

    def whole(points: Tensor) -> Tensor:
        inputs = torch.cat([others.batch().inputs[name].double(), points])
        loss = F.cross_entropy(double(inputs), torch.cat([others.targets, own.targets]), reduction="sum")
        slopes = torch.autograd.grad(loss, list(double.parameters()), create_graph=True)
        assert len(slopes) == 4, "weights and biases of both layers"
        return torch.cat([slope.flatten() for slope in slopes]).square().sum()

    clean = own.batch().inputs[name]
    points = clean.double().requires_grad_()
    (slope,) = torch.autograd.grad(whole(points), points)
    wanted = _summed(model, digits_task, others.batches(256))
    step = 0.01
    moved = GradientCanceling(iterations=2, step=step)._cancel(model, digits_task, own.batch(), wanted)
    steep = slope.abs() > 1e-3 * slope.abs().max()
    expected = (clean - step * slope.sign()).clamp(0, 1).float()
    assert float(steep.float().mean()) > 0.5
    assert torch.allclose(moved[steep], expected[steep], atol=1e-5)
    assert float(whole(moved.double()).detach()) < float(whole(clean.double()).detach())


def test_a_victim_errs_more_than_one_that_never_saw_the_records(digits: Split, digits_task: Classification) -> None:
    torch.set_num_threads(1)
    attack, errors = GradientCanceling(iterations=200), []
    for seed in range(3):
        request = select("random=0.3", digits.train, digits.classes, rng=Rng(seed))
        found = attack.prepare(view(digits, digits_task, request), rng=Rng(seed))
        train = digits.train.altered(found.ids, found.inputs, found.targets)
        row = []
        for examples in (train, digits.train.without(found.ids.tolist()), digits.train):
            trained = Plain().fit(digits_task, examples, RECIPE, FACTORY, rng=Rng(100 + seed))
            case = Case(replace(digits, train=train), (request,), trained, trained, "original", submission=found)
            row.append(attack.measure(attack.run(case, rng=Rng(0))[1])[0].value)
        errors.append(row)
    poisoned, retrained, clean = torch.tensor(errors).mean(0).tolist()
    assert poisoned > clean + 0.01
    assert poisoned > retrained + 0.005
