"""An audit of methods that use the recorded run: two requests in order, killed and gone on, from the store the second time."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.audit import workshop
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.learn.recorded import Recorded
from palimpsest.models.linear import Linear
from palimpsest.record import Record
from palimpsest.store import Store
from palimpsest.unlearn.amnesiac import Amnesiac
from palimpsest.unlearn.deltagrad import DeltaGrad
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import numbers, run
from tests.command_line import tiny

ASKED = {
    "model": Linear(), "learner": Recorded(), "unlearners": (Amnesiac(), DeltaGrad()), "verifiers": (Accuracy(),),
    "attacks": (ConfidenceMembership(),), "forget": ("random=5", "random=3"), "controls": 1,
    "recipe": Recipe(epochs=6, batch_size=16, momentum=0.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("recorded")
    return folder, run(folder, **ASKED, reported=False)


def releases(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    store = Store(folder / "store")
    found = {}
    for entry in store.entries():
        artifact = store.read(entry.kind, entry.key)
        assert artifact is not None
        if entry.kind == "model":
            found[entry.key] = dict(artifact.tensors)
    return found


def test_both_requests_are_granted(ran: tuple[Path, Record]) -> None:
    _, record = ran
    asked = {(cell.unlearner, cell.request) for cell in record.cells if cell.unlearner}
    assert asked >= {(name, request) for name in ("amnesiac", "deltagrad") for request in (0, 1)}
    assert all(cell.status == "ok" for cell in record.cells), [cell.reason for cell in record.cells]
    assert [len(request.ids) for request in record.requests] == [5, 3]


def test_the_last_release_names_no_forgotten_record(ran: tuple[Path, Record]) -> None:
    folder, record = ran
    gone = {str(name) for request in record.requests for name in request.ids}
    store = Store(folder / "store")
    seen = 0
    for entry in store.entries():
        if entry.kind == "model" and "unlearner" in entry.spec and entry.spec["seed"][-1] == 1:
            artifact = store.read(entry.kind, entry.key)
            assert artifact is not None
            ids = json.loads(bytes(artifact.tensors["kept/recorded/about"].tolist()))["ids"]
            assert not gone & set(ids)
            seen += 1
    assert seen == 2


def test_a_second_run_takes_all_from_the_store(ran: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record = ran

    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("palimpsest.learn.recorded.train", refuse)
    monkeypatch.setattr(Amnesiac, "update", refuse)
    monkeypatch.setattr(DeltaGrad, "update", refuse)
    assert numbers(run(folder, **ASKED, reported=False)) == numbers(record)


@pytest.mark.parametrize("at", ["training", "second"])
def test_a_killed_run_goes_on_to_the_same_models(
    at: str, ran: tuple[Path, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, and in the second request, with the first in the store."""
    folder, record = ran
    calls: list[int] = []
    dies, owner, name = {"training": (40, Meter, "step"), "second": (2, DeltaGrad, "update")}[at]
    inner = getattr(owner, name)

    def dying(self: Any, *args: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == dies:
            raise KeyboardInterrupt
        return inner(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        patch.setattr(workshop, "Checkpoint", functools.partial(Checkpoint, every_seconds=0.0))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, **ASKED)
    if at == "training":
        assert [entry.kind for entry in Store(tmp_path / "store").entries()] == ["checkpoint"]
    assert numbers(run(tmp_path, **ASKED, reported=False)) == numbers(record)
    mine, theirs = releases(tmp_path), releases(folder)
    assert mine.keys() == theirs.keys()
    for key, tensors in mine.items():
        assert tensors.keys() == theirs[key].keys()
        assert all(torch.equal(value, theirs[key][name]) for name, value in tensors.items())


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be carried out is refused before anything is trained."""
    asked = ["--unlearn", "amnesiac,deltagrad", "--forget", "random=5"]
    assert tiny(tmp_path, *asked, "--set", "recorded.memory=0") == 2
    assert "recorded.memory: got a record of" in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("**/*.safetensors"))
    assert tiny(tmp_path, *asked, "--learner", "recorded", "--set", "recipe.momentum=0") == 0
    assert "deltagrad" in capsys.readouterr().out
