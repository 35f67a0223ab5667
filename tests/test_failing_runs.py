"""Runs that fail or are stopped midway: one clear line, nothing half-written, and the next run goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from palimpsest.cli import main
from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter
from palimpsest.store import Store
from palimpsest.task import Classification, predict
from palimpsest.types import Split
from tests.command_line import TINY, tiny
from tests.refusals import furnished, refused


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return furnished(tmp_path, monkeypatch)


def test_training_that_diverges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = ("--set", "recipe.lr=1e9", "--set", "recipe.epochs=20")
    refused(capsys, tiny(tmp_path, *wild), "training", "lower recipe.lr (now 1e+09)")
    assert not (tmp_path / "out").exists()
    assert list(Store(tmp_path / "store").entries()) == []
    weights, store = tmp_path / "w.safetensors", ("--store", str(tmp_path / "store"))
    command = ["train", "--data", "digits", "--limit", "200", "--model", "linear", "--out", str(weights)]
    refused(capsys, main([*command, *wild, *store]), "lower recipe.lr")
    assert not weights.exists()


def test_unlearning_that_diverges_is_a_failed_cell(tmp_path: Path) -> None:
    assert tiny(tmp_path, "--unlearn", "retrain,finetune", "--set", "finetune.lr=1e30") == 0
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    mine = [cell for cell in record["cells"] if cell["unlearner"] == "finetune"]
    assert mine
    for cell in mine:
        assert (cell["status"], cell["measures"]) == ("failed", [])
        assert "not finite" in cell["reason"]
        assert "lower its lr" in cell["reason"]


@pytest.mark.parametrize("where", ["2.weight", "0.running_mean", "0.running_var"])
def test_foreign_weights_that_are_not_finite(room: Path, capsys: pytest.CaptureFixture[str], where: str) -> None:
    state = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)).state_dict()
    state |= {"mask": torch.full((2,), -torch.inf), where: torch.full_like(state[where], torch.nan)}
    torch.save(state, room / "own.pt")
    options = ("--data", "digits", "--limit", "200", "--model", "own_models:masked", "--forget", "class=0")
    command = ["audit", *options, "--original", "own.pt", "--unlearned", "u=own.pt", "--out", "out", "--store", "store"]
    refused(capsys, main(command), f"a NaN or infinite value in {where},")
    assert not (room / "out").exists()


def test_answers_that_are_not_finite_are_no_answers(digits: Split, digits_task: Classification) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.constant_(model[1].weight, 1e38)
    with pytest.raises(BadInput, match=r"NaN or infinite for 5 of 5 records"):
        predict(digits_task, model, digits.test.take(list(range(5))))


def test_ctrl_c_while_importing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "palimpsest.cli.app")
    monkeypatch.setattr("builtins.__import__", stopped)
    status = main(["list"])
    monkeypatch.undo()
    assert (status, capsys.readouterr().err) == (130, "stopped; run the same command again to go on\n")


def test_the_command_line_s_first_module_is_light() -> None:
    code = (
        "import sys, palimpsest.cli; sys.exit(sum(name in sys.modules for name in ('typer', 'rich', 'torch', 'email')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_store_of_a_newer_format(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "store").mkdir()
    (room / "store" / "FORMAT").write_text('{"format": 99}')
    refused(capsys, tiny(room), "99", "update palimpsest-ml")
    assert not list((room / "store").rglob("*.safetensors"))
    assert not (room / "out").exists()


def test_a_record_of_a_newer_format(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "record.json").write_text('{"format": 99}')
    refused(capsys, main(["report", "."]), "99")


def test_a_corrupted_artifact_is_found_and_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny(tmp_path) == 0
    store = Store(tmp_path / "store")
    victim = next(entry for entry in store.entries() if entry.kind == "model").path / "tensors.safetensors"
    sound = victim.read_bytes()
    victim.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    capsys.readouterr()
    refused(capsys, main(["store", "verify", "--store", str(tmp_path / "store")]), "1 damaged")
    assert tiny(tmp_path) == 0
    assert "made 1 models and 0 score sets" in capsys.readouterr().out
    assert victim.read_bytes() == sound
    assert store.verify() == []


@pytest.mark.parametrize("after", [0, 12, 31])
def test_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The disk fills up at some write; what is there stays whole, and the next run goes on."""
    real, calls = os.fsync, [0]

    def full(file: int) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr("palimpsest.store.os.fsync", full)
        refused(capsys, tiny(tmp_path), "no space left", "run the same command again")
    assert calls[0] == after + 1
    assert whole(tmp_path)
    assert not (tmp_path / "out" / "report.html").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")], "a file that was being written"
    assert tiny(tmp_path) == 0


@pytest.mark.parametrize("after", [0, 5])
def test_ctrl_c(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    real, calls = Meter.step, [0]

    def stop(*args: Any, **named: Any) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise KeyboardInterrupt
        real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "step", stop)
        assert tiny(tmp_path) == 130
    assert capsys.readouterr().err == "stopped; run the same command again to go on\n"
    assert whole(tmp_path)
    assert not (tmp_path / "out").exists()
    assert tiny(tmp_path) == 0


def whole(folder: Path) -> bool:
    """Whether the store holds whole artifacts only, and no leftovers."""
    store = Store(folder / "store")
    return store.verify() == [] and not any((folder / "store" / "tmp").iterdir())


def test_a_fault_of_ours_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*args: object, **named: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("palimpsest.pipeline.conclude", fault)
    with pytest.raises(ZeroDivisionError):
        tiny(tmp_path)


def test_details_are_shown_when_they_are_asked_for(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny(room, "--verbose", "--set", "recipe.epoch=1") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_from_the_keyboard(tmp_path: Path) -> None:
    """The signal itself, in a process of its own."""
    command = [sys.executable, "-m", "palimpsest.cli", "audit", *TINY, "--set", "recipe.epochs=3000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        error = process.stderr.read()
    assert first.startswith("digits:"), error
    assert process.returncode == 130
    assert error == "stopped; run the same command again to go on\n"
    assert whole(tmp_path / ".palimpsest")


def test_the_test_can_fail(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is fine is not refused, and one that trains is noticed."""
    with pytest.raises(AssertionError, match="something was trained"):
        tiny(room)
    capsys.readouterr()
    assert main(["list", "models"]) == 0
    with pytest.raises(AssertionError):
        refused(capsys, 0)
