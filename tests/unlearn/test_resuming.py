"""A method that trains goes on where a killed run was: to the same bits, at the same cost, with nothing made twice."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from palimpsest.audit import workshop
from palimpsest.audit.workshop import Workshop
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.learn.objective_perturbed import ObjectivePerturbed
from palimpsest.learn.output_perturbed import OutputPerturbed
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.learn.sharded import Sharded
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.catastrophic_forgetting_k import CatastrophicForgettingK
from palimpsest.unlearn.certified_removal import CertifiedRemoval
from palimpsest.unlearn.descent_to_delete import DescentToDelete
from palimpsest.unlearn.exact_unlearning_k import ExactUnlearningK
from palimpsest.unlearn.retrain import Retrain
from palimpsest.unlearn.sisa import Sisa

RECIPE = Recipe(epochs=4, batch_size=16, augment="crop+flip")
METHODS: dict[str, tuple[Unlearner, Learner, Model]] = {
    "retrain": (Retrain(), Plain(), ConvNet(width=2)),
    "catastrophic_forgetting_k": (CatastrophicForgettingK(k=3, epochs=6, batch_size=16), Plain(), ConvNet(width=2)),
    "exact_unlearning_k": (ExactUnlearningK(k=3), Plain(), ConvNet(width=2)),
    "sisa": (Sisa(), Sharded(shards=2, slices=2), ConvNet(width=2)),
    "certified_removal": (CertifiedRemoval(epsilon=1e-4), ObjectivePerturbed(), Linear()),  # trains anew at once
    "descent_to_delete": (DescentToDelete(), OutputPerturbed(), Linear()),
}
each_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def records(digits) -> Examples:
    return digits.train.take(list(range(60)))


@pytest.fixture(scope="module")
def forget(records) -> Examples:
    return records.take(list(range(6)))


@pytest.fixture(scope="module")
def retain(records) -> Examples:
    return records.take(list(range(6, 60)))


@contextmanager
def counted(dies_after: int = -1) -> Iterator[list[int]]:
    """The records of each gradient that a run takes, summed-up costs aside. One that dies took, as it believes, a thousand
    seconds."""
    made: list[int] = []
    count = Meter.count

    def counting(self: Meter, samples: int, evaluations: int = 1) -> None:
        if len(made) == dies_after:
            raise KeyboardInterrupt
        if dies_after > 0:
            self.before = 1000.0
        made.extend([samples] * (evaluations == 1))
        count(self, samples, evaluations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Meter, "count", counting)
        yield made


def same(one: Trained, other: Trained) -> bool:
    mine, theirs = ({**trained.model.state_dict(), **trained.kept} for trained in (one, other))
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in mine.items())


def evaluations(store: Store) -> int:
    """How many the checkpoints have kept: each shard counts its own."""
    kept: dict[int, int] = {}
    for entry in store.entries():
        found, shard = store.read(entry.kind, entry.key), entry.spec.get("shard", -1)
        if found:
            kept[shard] = max(kept.get(shard, 0), found.info["evaluations"])
    return sum(kept.values())


@each_method
def test_a_killed_run_goes_on(name, records, retain, forget, digits_task, tmp_path: Path) -> None:
    method, learner, factory = METHODS[name]
    trained = learner.fit(digits_task, records, RECIPE, factory, rng=Rng(0))
    with counted() as made:
        whole = method.unlearn(trained, retain, forget, rng=Rng(1))
    total = len(made)
    for share in (0.3, 0.6, 0.95):
        checkpoint = Checkpoint(Store(tmp_path / str(share)), {"method": name}, every_seconds=0.0)
        resumable = replace(trained, checkpoint=checkpoint)
        with counted(dies_after=int(share * total)), pytest.raises(KeyboardInterrupt):
            method.unlearn(resumable, retain, forget, rng=Rng(1))
        saved = evaluations(checkpoint.store)
        with counted() as made:
            resumed = method.unlearn(resumable, retain, forget, rng=Rng(1))
        assert saved > 0
        assert len(made) == total - saved, "steps that were done are done again"
        assert same(whole, resumed)
        assert resumed.cost.samples == whole.cost.samples
        assert resumed.cost.gradient_evaluations == whole.cost.gradient_evaluations
        assert resumed.cost.seconds > 1000, "the seconds before its death are lost"
        assert list(checkpoint.store.entries()) == [], "the checkpoint is left behind"


@each_method
def test_a_purge_finds_the_checkpoint_of_a_killed_run(
    name, records, retain, forget, digits_task, tmp_path: Path, monkeypatch
) -> None:
    """By the forgotten records too, unless the method is exact: they had a part in the weights that it begins with."""
    monkeypatch.setattr(workshop, "Checkpoint", functools.partial(Checkpoint, every_seconds=0.0))
    method, learner, factory = METHODS[name]
    shop = Workshop(Store(tmp_path), digits_task, "digits")
    before = shop.fit(learner, RECIPE, factory, records, Rng(0))
    earlier = replace(before, holds=np.union1d(before.holds, ["gone before"]))
    with counted() as made:
        method.unlearn(before.trained, retain, forget, rng=Rng(1))
    total = len(made)
    with counted(dies_after=total // 2), pytest.raises(KeyboardInterrupt):
        shop.unlearn(method, earlier, retain, forget, Rng(1))
    entries = [entry for entry in shop.store.entries() if entry.kind == "checkpoint"]
    held = {*retain.ids} if method.guarantee == "exact" else {*records.ids, "gone before"}
    assert entries
    assert all({*shop.store.held(entry.holds)} == held for entry in entries)
    with counted() as made:
        shop.unlearn(method, earlier, retain, forget, Rng(1))
    assert 0 < len(made) < total
