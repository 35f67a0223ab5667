"""First updates of the methods that push and pull, freeze, dampen or add noise, against float64 by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from palimpsest.learn.loop import drawn
from palimpsest.models.base import Model
from palimpsest.rng import Rng
from palimpsest.unlearn.catastrophic_forgetting_k import CatastrophicForgettingK
from palimpsest.unlearn.exact_unlearning_k import ExactUnlearningK
from palimpsest.unlearn.fisher import Fisher
from palimpsest.unlearn.negative_gradient import NegativeGradient
from palimpsest.unlearn.noisy_gradient_descent import NoisyGradientDescent
from palimpsest.unlearn.scrub import Scrub
from palimpsest.unlearn.ssd import SelectiveSynapticDampening
from tests.unlearn.by_hand import SGD, ByHand, agree, flat, losses, moved, single_gradients, slope


@pytest.mark.parametrize(("noise", "scale"), [("gradient", 0.2), ("update", 1.0), ("langevin", 0.4**0.5)])
def test_noisy_gradient_descent(problem, noise, scale) -> None:
    hand, draw = ByHand(problem.weights), Rng(0).child("noise").torch()
    for _ in range(2):
        hand.step(slope(hand.weights, *problem.data(problem.retain)))
        drawn = [torch.randn(weight.shape, generator=draw, dtype=torch.float64) for weight in hand.weights]
        hand.weights = [weight + 0.3 * scale * part for weight, part in zip(hand.weights, drawn, strict=True)]
    agree(problem, NoisyGradientDescent(sigma=0.3, noise=noise, epochs=2, **SGD), hand.weights)


def test_negative_gradient_goes_through_the_forget_set_again_and_again(problem) -> None:
    hand = ByHand(problem.weights)
    for _ in range(3):
        down, up = (slope(hand.weights, *problem.data(part)) for part in (problem.retain, problem.forget))
        hand.step([0.7 * kept - 0.3 * gone for kept, gone in zip(down, up, strict=True)])
    agree(problem, NegativeGradient(alpha=0.7, epochs=3, **SGD), hand.weights)


def test_negative_gradient_steps_through_all_of_the_retain_set_however_few_are_forgotten(problem) -> None:
    """Four batches of retained records a pass meet two of forgotten ones: these come round again, and no step is left out."""
    hand = ByHand(problem.weights)
    for epoch in range(2):
        kept = list(drawn(11, 3, Rng(0).child("epoch", epoch)))
        turns = [list(drawn(5, 3, Rng(0).child("forget").child("pass", 2 * epoch + turn))) for turn in (0, 1)]
        assert [len(rows) for rows in kept] == [3, 3, 3, 2]
        for ours, theirs in zip(kept, [*turns[0], *turns[1]], strict=True):
            down = slope(hand.weights, *problem.data(problem.retain.take(ours.tolist())))
            up = slope(hand.weights, *problem.data(problem.forget.take(theirs.tolist())))
            hand.step([0.7 * one - 0.3 * other for one, other in zip(down, up, strict=True)])
    agree(problem, NegativeGradient(alpha=0.7, epochs=2, **{**SGD, "batch_size": 3}), hand.weights)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_scrub(problem, optimizer) -> None:
    """Two epochs, the first with a pass over the forget set; the rate falls after the first."""
    weights = [weight.clone().requires_grad_() for weight in problem.weights]
    extra = {"lr": SGD["lr"], "weight_decay": SGD["weight_decay"]}
    made = (
        torch.optim.SGD(weights, momentum=0.9, **extra)
        if optimizer == "sgd"
        else torch.optim.Adam(weights, betas=(0.9, 0.999), **extra)
    )

    def logits(these: list[Tensor], records) -> Tensor:
        first, first_bias, last, last_bias = these
        return torch.tanh(problem.data(records)[0] @ first.T + first_bias) @ last.T + last_bias

    def distance(records) -> Tensor:
        teacher, student = ((logits(these, records) / 2.0).softmax(1) for these in (problem.weights, weights))
        return 4.0 * (teacher * (teacher.log() - student.log())).sum(1).mean()

    for epoch in range(2):
        made.param_groups[0]["lr"] = 0.2 * (0.1 if epoch else 1.0)
        passes = [-distance(problem.forget)] if epoch == 0 else []
        for _ in (*passes, None):
            made.zero_grad()
            ascent = passes.pop() if passes else None
            loss = ascent if ascent is not None else (
                0.9 * losses(weights, *problem.data(problem.retain)).mean() + 0.4 * distance(problem.retain)
            )  # fmt: skip
            loss.backward()
            made.step()
    settings = {"temperature": 2.0, "max_epochs": 1, "decay_at": (1,), "epochs": 2, "forget_batch_size": 99}
    start = dataclasses.replace(problem, weights=[weight.detach() for weight in problem.weights])
    agree(start, Scrub(alpha=0.4, gamma=0.9, optimizer=optimizer, **settings, **SGD), [w.detach() for w in weights])


def test_catastrophic_forgetting_k(problem) -> None:
    hand = ByHand(problem.weights)
    mask = [torch.zeros_like(w) if index < 2 else torch.ones_like(w) for index, w in enumerate(problem.weights)]
    for _ in range(3):
        hand.step(slope(hand.weights, *problem.data(problem.retain)), mask)
    agree(problem, CatastrophicForgettingK(k=1, epochs=3, **SGD), hand.weights)


def test_exact_unlearning_k(problem) -> None:
    """The head starts at other weights, which a factory gives."""
    fresh = [torch.full_like(weight, 0.1 + index) for index, weight in enumerate(problem.weights)]

    class Factory(Model):
        def network(self, task):
            raise AssertionError("not asked for")

        def build(self, task, rng):
            model = problem.trained().model
            for parameter, value in zip(model.parameters(), fresh, strict=True):
                parameter.data.copy_(value)
            return model

    hand = ByHand([*problem.weights[:2], *fresh[2:]])
    mask = [torch.zeros_like(w) if index < 2 else torch.ones_like(w) for index, w in enumerate(problem.weights)]
    for _ in range(3):
        hand.step(slope(hand.weights, *problem.data(problem.retain)), mask)
    trained = dataclasses.replace(problem.trained(), factory=Factory())
    agree(problem, ExactUnlearningK(k=1, epochs=3, **SGD), hand.weights, trained)


def test_ssd(problem) -> None:
    gone, kept = (single_gradients(problem, part).square().sum(0) for part in (problem.forget, problem.retain))
    here, everywhere = gone / 5, (gone + kept) / 16
    chosen = here > 1.2 * everywhere
    assert 0 < int(chosen.sum()) < len(chosen)
    scale = torch.where(chosen, (0.9 * everywhere / here).clamp(max=1.0), 1.0)
    old = flat(problem.weights)
    agree(problem, SelectiveSynapticDampening(alpha=1.2, dampening=0.9), moved(problem, old * scale - old))


@pytest.mark.parametrize("labels", ["true", "posterior"])
def test_fisher(problem, labels) -> None:
    inputs, _ = problem.data(problem.retain)
    if labels == "true":
        fisher = single_gradients(problem, problem.retain).square().mean(0)
    else:
        first, first_bias, last, last_bias = problem.weights
        posterior = (torch.tanh(inputs @ first.T + first_bias) @ last.T + last_bias).softmax(1)
        fisher = torch.zeros(31, dtype=torch.float64)
        for index in range(11):
            for label in range(3):
                one = slope(problem.weights, inputs[index : index + 1], torch.tensor([label]))
                fisher += posterior[index, label] * flat(one).square() / 11
    draw = Rng(0).child("noise").torch()
    noise = torch.cat([torch.randn(w.shape, generator=draw, dtype=torch.float64).flatten() for w in problem.weights])
    step = (0.01 * ((fisher + 1e-8) ** -0.5).clamp(max=9.0)).sqrt() * noise
    method = Fisher(alpha=0.01, labels=labels, power=0.5, largest=9.0)
    agree(problem, method, moved(problem, step))
