"""A small float64 problem, written down so that every method's update can be computed by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest.learn.base import Trained
from palimpsest.task import Classification
from palimpsest.types import Batch, Examples
from tests.unlearn.convex import optimum

FEATURES, HIDDEN, CLASSES = 3, 4, 3


class Shifted(Classification):
    """A task whose "random" label is a known function of the true one, and which remembers what it was asked."""

    def randomise(self, targets: Tensor, rng: torch.Generator) -> Tensor:
        return (targets + 1) % self.classes


@dataclass
class Problem:
    """Records 0 … 4 are forgotten, 5 … 15 retained. The model: Linear, Tanh, Linear, in float64."""

    records: Examples
    task: Classification
    weights: list[Tensor] = field(default_factory=list)
    initial: list[Tensor] = field(default_factory=list)

    @property
    def forget(self) -> Examples:
        return self.records.take(list(range(5)))

    @property
    def retain(self) -> Examples:
        return self.records.take(list(range(5, 16)))

    def data(self, records: Examples) -> tuple[Tensor, Tensor]:
        batch: Batch = records.batch()
        return batch.inputs["x"], batch.targets

    def trained(self) -> Trained:
        model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)).double()
        for parameter, value in zip(model.parameters(), self.weights, strict=True):
            parameter.data.copy_(value)
        names = list(model.state_dict())
        kept = {f"initial/{name}": value.clone() for name, value in zip(names, self.initial, strict=True)}
        return Trained(model, self.task, self.records.ids, kept=kept)


@pytest.fixture
def problem() -> Problem:
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, targets = normal(16, FEATURES), torch.randint(CLASSES, (16,), generator=generator)
    records = Examples.of({"x": inputs}, targets, [f"r{i}" for i in range(16)])
    shapes = [(HIDDEN, FEATURES), (HIDDEN,), (CLASSES, HIDDEN), (CLASSES,)]
    low, high = torch.tensor(-9.0), torch.tensor(9.0)
    task = Shifted(CLASSES, (FEATURES,), (0.0,) * FEATURES, (1.0,) * FEATURES, (low, high), "x")
    return Problem(records, task, [normal(*shape) for shape in shapes], [normal(*shape) for shape in shapes])


@pytest.fixture
def digits_few(digits) -> Examples:
    """200 training digits in the order of their classes, 20 of each: the first 20 are class 0."""
    targets = digits.train.targets.numpy()
    return digits.train.take(np.concatenate([np.flatnonzero(targets == c)[:20] for c in range(10)]))


@pytest.fixture(scope="session")
def copies(digits) -> Examples:
    """400 digits, of which the first ten come in sixteen copies each, so that forgetting k copies of all ten asks for the same
    change k times over, and the order of the error can be read off."""
    order = np.random.default_rng(0).permutation(len(digits.train))[:250]
    chosen = digits.train.take(np.concatenate([np.tile(order[:10], 16), order[10:]]))
    return Examples.of({"image": chosen.raw("image")}, chosen.targets, [f"r{i}" for i in range(len(chosen))])


@pytest.fixture(scope="session")
def convex(copies, digits_task) -> tuple[Trained, Examples]:
    return Trained(optimum(digits_task, copies), digits_task, copies.ids), copies
