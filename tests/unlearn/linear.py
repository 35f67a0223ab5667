"""Breast cancer for the methods of linear models: its records as the model sees them, written out."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from palimpsest.data.breast_cancer import BreastCancer
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples, Split


@cache
def split() -> Split:
    return BreastCancer().load()


def task() -> Classification:
    return Classification.of(split())


def fit(learner: Learner, records: Examples, seed: int = 0) -> Trained:
    return learner.fit(task(), records, Recipe(), Linear(), rng=Rng(seed))


def data(problem: Classification, records: Examples) -> tuple[Tensor, Tensor]:
    """Normalised records with a 1 behind, in float64, and their classes; shares no code with the package's own."""
    batch = records.batch()
    values = (next(iter(batch.inputs.values())).double() - torch.tensor(problem.mean).double()) / torch.tensor(
        problem.std
    ).double()
    return torch.hstack([values.reshape(len(values), -1), values.new_ones(len(values), 1)]), batch.targets


def matrix(model: nn.Module) -> Tensor:
    """Weights and bias of a linear model, shape (k, d + 1), in float64."""
    weight, bias = (parameter.detach().double() for parameter in model.parameters())
    return torch.hstack([weight, bias[:, None]])


def minimum(loss, start: Tensor) -> Tensor:
    """Where a strictly convex function of a matrix is least, by L-BFGS and then Newton's method with autograd's Hessian."""
    found = start.clone().requires_grad_()
    solver = torch.optim.LBFGS([found], max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss(found)
        value.backward()
        return value

    solver.step(closure)
    point = found.detach()
    for _ in range(4):
        slope = torch.autograd.functional.jacobian(loss, point).flatten()
        bend = torch.autograd.functional.hessian(loss, point, vectorize=True).reshape(len(slope), len(slope))
        point = point - torch.linalg.solve(bend, slope).reshape(point.shape)
    assert float(torch.autograd.functional.jacobian(loss, point).norm()) < 1e-9, "not converged"
    return point
