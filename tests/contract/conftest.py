"""Records and trained models that the contract tests of unlearners share."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest
import torch

from palimpsest import catalog
from palimpsest.learn.base import Trained
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.models.masked_autoencoder import MaskedAutoencoder
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from tests.contract.methods import BITES, LEARNERS, MEMBERS

GENERATOR = MaskedAutoencoder(patch=2, width=8, depth=1, heads=2, decoder_width=8, decoder_depth=1)


@pytest.fixture(scope="session")
def records(digits) -> Examples:
    """150 training digits, 15 of each class."""
    targets = digits.train.targets.numpy()
    return digits.train.take(np.sort(np.concatenate([np.flatnonzero(targets == c)[:15] for c in range(10)])))


@pytest.fixture(scope="session")
def posed(digits) -> typing.Callable[[type[Unlearner], Examples], Examples]:
    """Records as the task of a method has them: with masks where its models reconstruct."""
    masks = GENERATOR.task(digits).prepare(digits).train.inputs["mask"]

    def pose(method: type[Unlearner], part: Examples) -> Examples:
        if Classification.name in method.tasks:
            return part
        return dataclasses.replace(part, inputs={**part.inputs, "mask": masks})

    return pose


@pytest.fixture(scope="session")
def parted(records, posed) -> typing.Callable[[type[Unlearner]], tuple[Examples, Examples]]:
    """What a method is to retain and to forget: class 0, and two records of other classes."""
    gone = (records.targets.numpy() == 0) | np.isin(np.arange(150), (20, 90))

    def part(method: type[Unlearner]) -> tuple[Examples, Examples]:
        return posed(method, records.take(~gone)), posed(method, records.take(gone))

    return part


def _method(request: pytest.FixtureRequest) -> type[Unlearner]:
    """The method that a test is about; any, where it is about none."""
    chosen = getattr(request.node, "callspec", None)
    return MEMBERS[chosen.params["name"]] if chosen and "name" in chosen.params else Unlearner


@pytest.fixture
def forget(request, parted) -> Examples:
    return parted(_method(request))[1]


@pytest.fixture
def retain(request, parted) -> Examples:
    return parted(_method(request))[0]


@pytest.fixture(scope="session")
def trained_for(records, digits, digits_task, posed) -> typing.Callable[[type[Unlearner]], Trained]:
    """A small model for every method, the same for all that need no other learner, recipe or kind of model."""
    made: dict[str, Trained] = {}

    def train(method: type[Unlearner]) -> Trained:
        learner = method.needs or "plain"
        classifies = Classification.name in method.tasks
        key = f"{learner} {method.needs_recipe} {method.mixes} {classifies}"
        if key not in made:
            recipe = Recipe(**{"epochs": 3, "batch_size": 50, **method.needs_recipe})
            one = catalog.make("learners", learner, LEARNERS.get(learner))
            factory = ConvNet(width=2) if method.mixes else Mlp(width=16, layers=2)
            factory = catalog.make("models", one.for_model) if one.for_model else factory
            task = digits_task if classifies else GENERATOR.task(digits)
            factory = factory if classifies else GENERATOR
            fitted = one.fit(task, posed(method, records), recipe, factory, rng=Rng(0))
            made[key] = dataclasses.replace(fitted, validation=digits.validation)
        return made[key]

    return train


@pytest.fixture
def trained(name, trained_for) -> Trained:
    return trained_for(MEMBERS[name])


@pytest.fixture(scope="session")
def unlearned(trained_for, parted) -> typing.Callable[..., Trained]:
    """What a method makes of its model with the stream Rng(1), made once for all tests that only look at it."""
    made: dict[str, Trained] = {}

    def unlearn(name: str, settings: dict[str, typing.Any] | None = None) -> Trained:
        settings = BITES.get(name, {}) if settings is None else settings
        key = f"{name} {sorted(settings.items())}"
        if key not in made:
            torch.manual_seed(0)
            trained = trained_for(MEMBERS[name])
            made[key] = MEMBERS[name](**settings).unlearn(trained, *parted(MEMBERS[name]), rng=Rng(1))
        return made[key]

    return unlearn
