"""An audit by several workers is the audit by one: the same numbers, no cell lost, none counted twice."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from palimpsest import tuning
from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.residual.uma import Uma
from palimpsest.audit.workshop import ATTACKED
from palimpsest.cli import main
from palimpsest.data.digits import Digits
from palimpsest.defend.purification import Purification
from palimpsest.errors import BadInput
from palimpsest.learn.recipe import Recipe
from palimpsest.learn.recorded import Recorded
from palimpsest.learn.sharded import Sharded
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.pipeline import audit
from palimpsest.record import Record
from palimpsest.rng import Rng, determinism
from palimpsest.store import Store
from palimpsest.types import Split
from palimpsest.unlearn.amnesiac import Amnesiac
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.retrain import Retrain
from palimpsest.unlearn.sisa import Sisa
from palimpsest.verify.accuracy import Accuracy
from palimpsest.workers import Pool, Workers, at_work
from tests.audit import small
from tests.audit.small import numbers, plan

TWO = Workers(2)


@dataclass(frozen=True)
class Failing(Unlearner):
    """Fails at the second request."""

    def update(self, model: Any, trained: Any, retain: Any, forget: Any, *, rng: Any, meter: Any) -> None:
        if len(retain) < 150:
            raise BadInput("failing", got="a second request", expected="one")


@dataclass(frozen=True)
class Deadly(ConfidenceMembership):
    """Kills the first process that attacks with it, as memory that runs out does, and leaves a marker."""

    marker: str = ""

    def run(self, case: Any, **how: Any) -> Any:
        marker = Path(self.marker)
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(case, **how)


def choice(**changes: Any) -> dict[str, Any]:
    """Two requests, three ways of training, and a method that fails."""
    unlearners = (Retrain(), Finetune(epochs=1, lr=0.05, batch_size=64), Sisa(), Amnesiac(), Failing())
    learners = {"sharded": Sharded(shards=2, slices=2), "recorded": Recorded()}
    base = {
        "data": Digits(limit=200), "model": ConvNet(width=2), "unlearners": unlearners, "learners": learners,
        "forget": ("random=20", "random=20"), "attacks": (ConfidenceMembership(),), "controls": 1, "seeds": (0,),
        "verifiers": (Accuracy(),),
    }  # fmt: skip
    return {**base, **changes}


def run(folder: Path, workers: Workers, said: list[str] | None = None, **changes: Any) -> Record:
    say = (said if said is not None else []).append
    return small.run(folder, reported=False, workers=workers, say=say, **choice(**changes))


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return run(tmp_path_factory.mktemp("serial"), Workers(1))


def test_two_workers_give_the_record_of_one(serial: Record, tmp_path: Path) -> None:
    said: list[str] = []
    assert numbers(run(tmp_path, TWO, said)) == numbers(serial)
    assert {cell.status for cell in serial.cells} == {"ok", "failed"}
    assert "made 0 models and 2 score sets" in said[-1], "all by workers but what a failing method did before it failed"


def test_a_second_run_asks_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"unlearners": (Retrain(),), "forget": ("random=20",)}
    first = run(tmp_path, Workers(1), **few)

    def nobody(*args: Any, **named: Any) -> Iterator[Any]:
        raise AssertionError("a worker was asked")

    monkeypatch.setattr(Pool, "finish", nobody)
    assert numbers(run(tmp_path, TWO, **few)) == numbers(first)


def test_a_worker_that_dies_leaves_no_hole_and_no_double(tmp_path: Path) -> None:
    few = {
        "attacks": (Deadly(marker=str(tmp_path / "marker")),),
        "unlearners": (Retrain(), Finetune(epochs=1)),
        "forget": ("random=20",),
    }
    record = run(tmp_path, TWO, **few)
    assert (tmp_path / "marker").exists(), "one was killed"
    places = [(c.unlearner, c.target, c.seed, c.replica, c.attack or c.verifier) for c in record.cells]
    assert len(places) == len(set(places))
    assert numbers(record) == numbers(run(tmp_path / "serial", Workers(1), **few)), "the marker is there: nobody dies"


def test_workers_redact_and_have_one_thread_each(tmp_path: Path) -> None:
    uma = Uma(epsilon=(8 / 255,), steps=1, records=4, layout="contiguous")
    few = choice(attacks=(uma,), unlearners=(Retrain(),), forget=("random=20",), threads=None)
    store, said = Store(tmp_path / "store", redact=True), list[str]()
    record = audit(plan(**few), store, tmp_path / "out", workers=TWO, say=said.append)
    scores = [store.read(entry.kind, entry.key) for entry in store.entries() if entry.kind == "scores"]
    assert len(scores) == len([cell for cell in record.cells if cell.status == "ok"])
    assert not [found for found in scores if found is None or ATTACKED in found.tensors]
    assert not [line for line in said if "took attacked inputs" in line], "no worker ever wrote any"
    assert record.hardware["threads"] == 1


def test_tuning_finds_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    few = plan(**choice(forget=("random=20",), unlearners=(Finetune(), Amnesiac())))
    found = [
        tuning.tune(few, Store(tmp_path / str(workers.count)), trials=3, seeds=1, share=0.4, workers=workers)
        for workers in (Workers(1), TWO)
    ]
    assert found[0] == found[1]
    assert all(tuned.best for tuned in found[0])


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What workers were asked for, by the name of the pieces."""
    names: list[str] = []
    finish = Pool.finish

    def noted(self: Pool, work: Any, items: Any, name: str) -> Any:
        names.append(name)
        return finish(self, work, items, name)

    monkeypatch.setattr(Pool, "finish", noted)
    return names


def test_shards_are_trained_by_workers_to_the_same_weights(
    digits: Split, digits_task: Any, asked_for: list[str]
) -> None:
    few, forget = digits.train.take(list(range(120))), digits.train.take([3, 50, 70])
    learner, recipe = Sharded(shards=3, slices=2), Recipe(epochs=3, batch_size=16)
    found = []
    for workers in (Workers(1), TWO):
        with determinism(1), at_work(workers):
            trained = learner.fit(digits_task, few, recipe, ConvNet(width=2), rng=Rng(0))
            found.append([trained, Sisa().unlearn(trained, few.without(forget.ids), forget, rng=Rng(1))])
        assert asked_for == ([] if workers.count == 1 else ["shards", "shards"])
    for one, other in zip(*found, strict=True):
        assert (one.cost.samples, one.cost.gradient_evaluations) == (
            other.cost.samples,
            other.cost.gradient_evaluations,
        )
        assert one.kept.keys() == other.kept.keys()
        assert all(torch.equal(value, other.kept[name]) for name, value in one.kept.items())
        state = other.model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in one.model.state_dict().items())


def test_the_command_that_trains_one_model_gives_its_shards_to_workers(tmp_path: Path, asked_for: list[str]) -> None:
    few = ["--limit", "120", "--learner", "sharded", "--set", "sharded.shards=2", "--set", "recipe.epochs=1"]
    where = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "weights.safetensors")]
    assert main(["train", "--data", "digits", "--model", "linear", "--workers", "2", *few, *where]) == 0
    assert asked_for == ["shards"]


@dataclass(frozen=True)
class Fickle(Digits):
    """Other records in every process."""

    def read(self) -> Split:  # pragma: no cover - only its fingerprint is looked at
        return Digits(limit=100 + os.getpid() % 50).load()

    def load(self) -> Split:
        return self.read()


def test_data_that_change_from_reading_to_reading_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="got others in a worker than in the audit"):
        run(tmp_path, TWO, data=Fickle(), forget=("random=20",), unlearners=(Retrain(),))


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there is no ray for this Python")
def test_a_ray_cluster_of_two_workers_gives_the_record_of_one(serial: Record, tmp_path: Path) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert numbers(run(tmp_path, Workers(2, "ray"))) == numbers(serial)
    finally:
        ray.shutdown()


def test_workers_reach_every_stage_behind_a_release(tmp_path: Path) -> None:
    """Two requests, each bare, behind a purifier, and behind one that the attacker does not know of: nothing is left to be made."""
    said: list[str] = []
    how = {
        "data": Digits(limit=100),
        "model": Linear(),
        "forget": ("random=5", "class=0"),
        "unlearners": (Finetune(epochs=1, batch_size=64),),
        "attacks": (Uma(epsilon=(0.1,), steps=1, records=5, references=5, layout="contiguous"),),
        "verifiers": (Accuracy(),),
        "defences": (Purification(width=4, latent=2, shrink=2, epochs=1),),
        "recipe": Recipe(epochs=1),
        "controls": 1,
    }
    record = small.run(tmp_path, say=said.append, reported=False, workers=Workers(2), **how)
    assert said[-1].startswith("made 0 models and 0 score sets")
    assert {(cell.request, cell.learner) for cell in record.cells} == {
        (request, f"plain{ending}") for request in (0, 1) for ending in ("", "+purification", "+purification (unknown)")
    }
    assert all(cell.status == "ok" for cell in record.cells)
