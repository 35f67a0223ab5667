"""What every learner of the catalog must pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from palimpsest.catalog import document, identity, make, members
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.files import write_weights
from palimpsest.rng import Rng
from palimpsest.store import Store, digest
from palimpsest.task import Classification
from palimpsest.types import Examples, Split

NAMES = sorted(members("learners"))
SMALL = ConvNet(width=2)
RECIPE = Recipe(epochs=3, batch_size=16, lr=0.05)


@pytest.fixture(scope="module")
def records(digits: Split) -> Examples:
    return digits.train.take(list(range(48)))


@pytest.fixture(scope="module")
def learner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits_task: Classification
) -> Learner:
    """The member of that name, with what its required settings ask for."""
    name = request.param
    path = tmp_path_factory.mktemp("weights") / "given.safetensors"
    write_weights(path, SMALL.build(digits_task, Rng(99)))
    needs = {"weights": str(path)}
    fields = {row["name"]: row["default"] for row in document(members("learners")[name])}
    required = [field for field, default in fields.items() if default == "(required)"]
    assert set(required) <= needs.keys(), f"tell this test what {required} of {name} may be"
    made: Learner = make("learners", name, {field: value for field, value in needs.items() if field in fields})
    return made


@pytest.fixture(scope="module")
def trained(learner: Learner, digits_task: Classification, records: Examples) -> Trained:
    """What the member makes with seed 0, once for all tests that look at it or compare with it."""
    return fit(learner, digits_task, records)


def each_learner(test: Any) -> Any:
    return pytest.mark.parametrize("learner", NAMES, indirect=True)(test)


def factory(learner: Learner) -> Model:
    return make("models", learner.for_model) if learner.for_model else SMALL  # type: ignore[no-any-return]


def fit(learner: Learner, task: Classification, records: Examples, seed: int = 0, **more: Any) -> Trained:
    return learner.fit(task, records, RECIPE, factory(learner), rng=Rng(seed), **more)


def same(one: Trained, other: Trained) -> bool:
    a, b = one.model.state_dict(), other.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@each_learner
def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    learner: Learner, digits_task: Classification, records: Examples, trained: Trained
) -> None:
    assert same(trained, fit(learner, digits_task, records))
    assert not same(trained, fit(learner, digits_task, records, seed=1))


@each_learner
def test_what_is_returned_says_how_it_was_made(
    learner: Learner, digits_task: Classification, records: Examples, trained: Trained
) -> None:
    assert trained.ids.tolist() == records.ids.tolist()
    assert (trained.learner, trained.recipe, trained.factory) == (learner, RECIPE, factory(learner))
    assert trained.task is digits_task
    assert not any(module.training for module in trained.model.modules())
    assert trained.initial().keys() == trained.model.state_dict().keys()
    start = learner.start(factory(learner), digits_task, Rng(0)).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in trained.initial().items())
    assert any(not torch.equal(value, start[name]) for name, value in trained.model.state_dict().items())


@each_learner
def test_the_cost_is_reported(records: Examples, trained: Trained) -> None:
    cost = trained.cost
    assert cost.seconds > 0
    assert cost.samples >= RECIPE.epochs * len(records)
    assert cost.gradient_evaluations >= RECIPE.epochs * 3


@each_learner
def test_a_run_that_dies_resumes_to_the_same_weights(
    learner: Learner, digits_task: Classification, records: Examples, trained: Trained, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    checkpoint = Checkpoint(Store(tmp_path / "store"), {"learner": identity(learner)}, every_seconds=0.0)
    count, seen = Meter.count, []

    def counted(self: Meter, *args: Any, **kwargs: Any) -> None:
        if len(seen) == dies_after:
            raise KeyboardInterrupt
        seen.append(1)
        count(self, *args, **kwargs)

    monkeypatch.setattr(Meter, "count", counted)
    dies_after = trained.cost.gradient_evaluations * 7 // 9
    with pytest.raises(KeyboardInterrupt):
        fit(learner, digits_task, records, checkpoint=checkpoint)
    dies_after = -1
    seen.clear()
    resumed = fit(learner, digits_task, records, checkpoint=checkpoint)
    assert same(trained, resumed)
    assert 0 < len(seen) < trained.cost.gradient_evaluations, "started anew"
    assert resumed.cost.samples == trained.cost.samples
    assert resumed.cost.gradient_evaluations == trained.cost.gradient_evaluations
    assert list(checkpoint.store.entries()) == []


@each_learner
def test_the_order_in_which_models_are_made_does_not_matter(
    learner: Learner, digits_task: Classification, records: Examples, trained: Trained
) -> None:
    fit(learner, digits_task, records.take(list(range(20))), seed=5)
    torch.rand(3)
    assert same(trained, fit(learner, digits_task, records))


@each_learner
def test_the_identity_makes_a_key(learner: Learner) -> None:
    assert identity(learner)["name"] in NAMES
    assert len(digest(identity(learner))) == 64
