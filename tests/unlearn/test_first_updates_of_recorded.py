"""Amnesiac unlearning and DeltaGrad on a run that was made, and unlearned, by hand in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from palimpsest.learn._trajectory import Trajectory
from palimpsest.learn.base import Trained
from palimpsest.learn.recipe import Recipe
from palimpsest.unlearn.amnesiac import Amnesiac
from palimpsest.unlearn.deltagrad import DeltaGrad
from tests.unlearn.by_hand import ByHand, agree, flat, slope
from tests.unlearn.test_quasi_newton import recursion

DECAY = 0.05
RECIPE = Recipe(optimizer="sgd", momentum=0.0, weight_decay=DECAY)
BATCHES = [[5, 6, 0, 7], [8, 9, 10], [1, 11, 12, 13, 2], [3, 4], [14, 15, 5], [6, 1, 8, 9], [10, 0, 11, 12, 3, 7]]
BATCHES += [[13, 14, 15, 4], [5, 8, 11, 14], [6, 2, 9, 12]]
RATES = [0.2, 0.2, 0.15, 0.15, 0.15, 0.1, 0.1, 0.1, 0.05, 0.05]


class Hand:
    """Plain SGD on mean gradients with weight decay, its weights flat."""

    def __init__(self, problem) -> None:
        self.problem = problem
        self.inputs, self.targets = problem.data(problem.records)

    def parts(self, vector: Tensor) -> list[Tensor]:
        shapes = [weight.shape for weight in self.problem.weights]
        pieces = vector.split([shape.numel() for shape in shapes])
        return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def loss_sum(self, vector: Tensor, rows: list[int]) -> Tensor:
        if not rows:
            return torch.zeros_like(vector)
        return flat(slope(self.parts(vector), self.inputs[rows], self.targets[rows], how="sum"))

    def gradient(self, vector: Tensor, rows: list[int]) -> Tensor:
        return self.loss_sum(vector, rows) / len(rows) + DECAY * vector

    def run(self, batches: list[list[int]]) -> list[Tensor]:
        found = [flat(self.problem.initial)]
        for rows, rate in zip(batches, RATES, strict=True):
            found.append(found[-1] - rate * self.gradient(found[-1], rows) if rows else found[-1])
        return found

    def trained(self) -> Trained:
        weights = self.run(BATCHES)
        self.problem.weights = self.parts(weights[-1])
        rows = [torch.tensor(batch) for batch in BATCHES]
        rates = torch.tensor(RATES, dtype=torch.float64)
        run = Trajectory(torch.stack(weights), rows, rates, self.problem.records.ids)
        trained = self.problem.trained()
        return dataclasses.replace(trained, kept={**trained.kept, **run.kept()}, recipe=RECIPE)


@pytest.fixture
def hand(problem) -> Hand:
    return Hand(problem)


def left(rows: list[int]) -> list[int]:
    return [row for row in rows if row >= 5]


def test_amnesiac(hand, problem) -> None:
    weights, trained = hand.run(BATCHES), hand.trained()
    expected = weights[-1].clone()
    for step, rows in enumerate(BATCHES):
        if any(row < 5 for row in rows):
            expected -= weights[step + 1] - weights[step]
    agree(problem, Amnesiac(), hand.parts(expected), trained)


def test_amnesiac_repairs_by_plain_sgd_on_the_retain_set(hand, problem) -> None:
    weights, trained = hand.run(BATCHES), hand.trained()
    vector = weights[0].clone()
    for step, rows in enumerate(BATCHES):
        if all(row >= 5 for row in rows):
            vector += weights[step + 1] - weights[step]
    for _ in range(3):
        vector -= 0.3 * hand.loss_sum(vector, list(range(5, 16))) / 11
    agree(problem, Amnesiac(repair_epochs=3, lr=0.3, batch_size=99), hand.parts(vector), trained)


def test_deltagrad_exact_throughout(hand, problem) -> None:
    trained = hand.trained()
    expected = hand.run([left(rows) for rows in BATCHES])[-1]
    agree(problem, DeltaGrad(burn_in=0, period=1), hand.parts(expected), trained)
    agree(problem, DeltaGrad(burn_in=99), hand.parts(expected), trained)


@pytest.mark.parametrize(("burn_in", "period", "history"), [(2, 4, 1), (2, 3, 2), (4, 3, 3), (0, 3, 2)])
def test_deltagrad(burn_in, period, history, hand, problem) -> None:
    """The same walk with dense matrices; some of its steps must be estimated."""
    run, trained = hand.run(BATCHES), hand.trained()
    vector, pairs, failed, estimated = run[0].clone(), [], False, 0
    for step, (rows, rate) in enumerate(zip(BATCHES, RATES, strict=True)):
        kept, gone = left(rows), [row for row in rows if row < 5]
        if not kept:
            continue
        recorded, change = (run[step] - run[step + 1]) / rate, vector - run[step]
        lost = hand.loss_sum(vector, gone)
        if step < burn_in or (step - burn_in) % period == 0 or failed or not pairs:
            total = hand.loss_sum(vector, kept)
            if step:
                change_of_slope = hand.gradient(vector, rows) - recorded
                failed = bool(change @ change_of_slope <= 0)
                pairs += [] if failed else [(change, change_of_slope)]
        else:
            estimated += 1
            mean = recorded + recursion(pairs[-history:]) @ change - DECAY * vector
            total = len(rows) * mean - lost
        vector = vector - rate * (total / len(kept) + DECAY * vector)
    assert estimated >= 3
    exact = hand.run([left(rows) for rows in BATCHES])[-1]
    assert float((vector - exact).norm()) > 1e-3 * float((run[-1] - exact).norm()), "an estimate is an estimate"
    agree(problem, DeltaGrad(burn_in=burn_in, period=period, history=history), hand.parts(vector), trained)


def test_the_hand_steps_as_the_other_hand_does(hand, problem) -> None:
    """Against the reference of the other methods: one step without decay."""
    other = ByHand(problem.initial)
    other.weights = [weight.clone() for weight in problem.initial]
    gradient = slope(other.weights, *problem.data(problem.records))
    step = hand.loss_sum(flat(problem.initial), list(range(16))) / 16
    torch.testing.assert_close(step, flat(gradient))
