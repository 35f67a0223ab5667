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
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from tests.contract.methods import BITES, LEARNERS, MEMBERS


@pytest.fixture(scope="session")
def records(digits) -> Examples:
    """150 training digits, 15 of each class."""
    targets = digits.train.targets.numpy()
    return digits.train.take(np.sort(np.concatenate([np.flatnonzero(targets == c)[:15] for c in range(10)])))


@pytest.fixture(scope="session")
def forget(records) -> Examples:
    """Class 0, and two records of other classes."""
    return records.take(np.flatnonzero((records.targets.numpy() == 0) | np.isin(np.arange(150), (20, 90))))


@pytest.fixture(scope="session")
def retain(records, forget) -> Examples:
    return records.without(forget.ids)


@pytest.fixture(scope="session")
def trained_for(records, digits_task) -> typing.Callable[[type[Unlearner]], Trained]:
    """A small model for every method, the same for all that need no other learner, recipe or kind of model."""
    made: dict[str, Trained] = {}

    def train(method: type[Unlearner]) -> Trained:
        learner = method.needs or "plain"
        key = f"{learner} {method.needs_recipe} {method.mixes}"
        if key not in made:
            recipe = Recipe(**{"epochs": 3, "batch_size": 50, **method.needs_recipe})
            one = catalog.make("learners", learner, LEARNERS.get(learner))
            factory = ConvNet(width=2) if method.mixes else Mlp(width=16, layers=2)
            factory = catalog.make("models", one.for_model) if one.for_model else factory
            made[key] = one.fit(digits_task, records, recipe, factory, rng=Rng(0))
        return made[key]

    return train


@pytest.fixture
def trained(name, trained_for, digits) -> Trained:
    return dataclasses.replace(trained_for(MEMBERS[name]), validation=digits.validation)


@pytest.fixture(scope="session")
def unlearned(trained_for, digits, retain, forget) -> typing.Callable[..., Trained]:
    """What a method makes of its model with the stream Rng(1), made once for all tests that only look at it."""
    made: dict[str, Trained] = {}

    def unlearn(name: str, settings: dict[str, typing.Any] | None = None) -> Trained:
        settings = BITES.get(name, {}) if settings is None else settings
        key = f"{name} {sorted(settings.items())}"
        if key not in made:
            torch.manual_seed(0)
            trained = dataclasses.replace(trained_for(MEMBERS[name]), validation=digits.validation)
            made[key] = MEMBERS[name](**settings).unlearn(trained, retain, forget, rng=Rng(1))
        return made[key]

    return unlearn
