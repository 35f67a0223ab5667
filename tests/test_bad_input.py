"""Bad input gets one clear line that says got, expected and what to do, exit 2, and nothing half-written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from palimpsest.catalog import FOLDERS, find, make, members
from palimpsest.cli import main
from palimpsest.data.digits import Digits
from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.store import Store
from palimpsest.task import Classification, predict
from palimpsest.types import Split
from tests.command_line import TINY, tiny

OWN_MODELS = """
import torch
from torch import nn

def wider(shape, classes, width): return nn.Linear(64, classes)
def placed(shape, /): return nn.Linear(64, 10)
def raises(shape): raise KeyError("depth")
def nothing(): return None
def bare(): return nn.Flatten()
def eleven(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))
def narrow(classes): return nn.Sequential(nn.Flatten(), nn.Linear(63, classes))
def masked(classes):
    made = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, classes))
    made.register_buffer("mask", torch.full((2,), -torch.inf))
    return made

class Asserts(nn.Linear):
    def __init__(self): super().__init__(64, 10)
    def forward(self, x): assert False, "not today"

class Twice(nn.Linear):
    def __init__(self): super().__init__(64, 10)
    def forward(self, x): return (super().forward(x.flatten(1)),) * 2

number = 3
module = nn.Linear(2, 2)
"""
"""What somebody hands in as a model."""


class Never:
    """Something that no weights file may hold."""


def table(**columns: list[Any]) -> str:
    """CSV text of 40 rows: the columns given, and a feature."""
    columns = {"feature": [str(i / 7) for i in range(40)], **columns}
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files that the commands below name, in which nothing may be trained."""

    def forbidden(*args: object, **named: object) -> None:
        raise AssertionError("something was trained before the refusal")

    monkeypatch.setattr(Meter, "step", forbidden)
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    classes = [i % 2 for i in range(40)]
    files: dict[str, str] = {
        "none.txt": "\n\n",
        "stranger.txt": "digits/9999\n",
        "everything.txt": "\n".join(Digits(limit=200).load().train.ids.tolist()),
        "one_class.csv": table(label=[1] * 40),
        "good.csv": table(label=classes),
        "nan.csv": table(label=classes, other=["nan" if i == 3 else i for i in range(40)]),
        "inf.csv": table(label=classes, other=["inf" if i == 3 else i for i in range(40)]),
        "unlabelled.csv": table(),
        "broken.json": "{",
        "list.json": "[]",
        "wrong_field.json": json.dumps({"seedz": 3}),
        "wrong_type.json": json.dumps({"data": "digits", "seeds": "many"}),
        "wrong_part.json": json.dumps({"data": "digits", "settings": {"salum": {"lr": 1}}}),
        "text.safetensors": "no weights",
        "own_models.py": OWN_MODELS,
        "own_broken.py": "1 / 0",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    torch.save({"model": Never()}, tmp_path / "more.pt")
    torch.save({"weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    for index in range(24):
        side = 8 if index else 9
        picture = Image.fromarray(np.full((side, side), index, dtype=np.uint8))
        place = tmp_path / "pictures" / "train" / ("cat", "dog")[index % 2] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], status: int, *said: str) -> str:
    """The one line on standard error."""
    error = capsys.readouterr().err
    assert status == 2, error
    assert error.count("\n") == 1, error
    assert error.endswith("\n"), error
    for word in ("got", "expected", *said):
        assert word in error, error
    return error


IMPORTED = ("--data", "digits", "--limit", "200", "--model", "linear", "--forget", "class=0", "--original", "other.pt")

CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # names
    "data": (("--data", "digitz"), ("'digitz'", "did you mean 'digits'?")),
    "model": (("--model", "convnett"), ("did you mean 'convnet'?",)),
    "unlearner": (("--unlearn", "retrain,finetun"), ("'finetun'", "did you mean 'finetune'?")),
    "attack": (("--attack", "umma"), ("did you mean 'uma'?",)),
    "verifier": (("--verify", "acuracy"), ("did you mean 'accuracy'?",)),
    "learner": (("--learner", "plane"), ("did you mean 'plain'?",)),
    "preset": (("--settings", "digitz"), ("did you mean 'digits'?",)),
    "module": (("--unlearn", "no_such_module:Mine"), ("no module 'no_such_module'",)),
    "attribute": (("--unlearn", "palimpsest.unlearn.salun:SalUm"), ("did you mean 'SalUn'?",)),
    "class of another kind": (("--attack", "palimpsest.unlearn.salun:SalUn"), ("kind 'attacks'",)),
    "option": (("--unlern", "retrain"), ("did you mean '--unlearn'?",)),
    "requirement": (("--require", "forgoten"), ("did you mean 'forgotten'?",)),
    "device": (("--device", "gpuu"), ("--device", "try cpu")),
    "device without contents": (("--device", "meta"), ("--device: got 'meta'", "try cpu")),
    "device of another machine": (("--device", "cuda:977"), ("--device: got 'cuda:977'",)),
    "one device by two names": (("--device", "cpu:0"), ("--device", "write cpu")),
    # fields and types
    "part in --set": (("--set", "retrian.lr=1"), ("did you mean 'retrain'?",)),
    "part that is not in this audit": (("--set", "salun.lr=1"), ("'salun'",)),
    "field in --set": (("--set", "recipe.epoch=1"), ("'epoch'", "did you mean 'epochs'?")),
    "no field in --set": (("--set", "recipe=1"), ("NAME.FIELD=VALUE",)),
    "type in --set": (("--set", "recipe.epochs=many"), ("recipe.epochs: got 'many'", "int")),
    "fraction for a whole number": (("--set", "recipe.epochs=1.5"), ("recipe.epochs", "int")),
    "choice in --set": (("--set", "recipe.optimizer=sdg"), ("'sgd'",)),
    "value out of range": (("--set", "recipe.batch_size=0"), ("at least 1",)),
    "not finite": (("--set", "recipe.lr=nan"), ("finite",)),
    "seeds": (("--seeds", "three"), ("--seeds: got 'three'",)),
    "no seeds": (("--seeds", "0"), ("--seeds: got '0'", "greater than or equal to 1")),
    "controls": (("--controls", "0"), ("--controls: got '0'",)),
    "limit": (("--limit", "3"), ("limit", "at least 10")),
    "threads": (("--threads", "0"), ("--threads: got '0'",)),
    "no methods": (("--unlearn", ""), ("--unlearn",)),
    "field in a settings file": (("--settings", "wrong_field.json"), ("'seedz'", "did you mean 'seeds'?")),
    "type in a settings file": (("--settings", "wrong_type.json"), ("wrong_type.json: seeds: got 'many'",)),
    "part in a settings file": (("--settings", "wrong_part.json"), ("'salum'", "'salun'")),
    "a field of an attack": (("--set", "confidence_membership.references=0"), ("references: got 0", "at least 1")),
    "a field of a verifier": (("--verify", "relearn_time", "--set", "relearn_time.every=0"), ("every: got 0",)),
    "a field of a method": (("--unlearn", "salun", "--set", "salun.share=nan"), ("salun.share: got nan", "at most 1")),
    "a field of a model": (("--model", "mlp", "--set", "mlp.layers=1"), ("mlp.layers: got 1", "at least 2")),
    "a field of the data": (("--set", "digits.test=1"), ("digits.test: got 1.0", "below 1")),
    # models of one's own
    "a model that wants more": (("--model", "own_models:wider"), ("'width'", "`shape` and `classes`")),
    "a model by position": (("--model", "own_models:placed"), ("'shape'", "by name")),
    "a model that raises": (("--model", "own_models:raises"), ("KeyError: 'depth' (own_models.py, line",)),
    "a model that is none": (("--model", "own_models:nothing"), ("NoneType", "return the module")),
    "a model without weights": (("--model", "own_models:bare"), ("without parameters",)),
    "a model with another head": (("--model", "own_models:eleven"), ("(2, 11)", "(2, 10)")),
    "a model with another shape": (("--model", "own_models:narrow"), ("RuntimeError", "(1, 8, 8)", "(2, 10)")),
    "a model that asserts": (("--model", "own_models:Asserts"), ("AssertionError: not today",)),
    "a model that answers twice": (("--model", "own_models:Twice"), ("own_models:Twice", "(2, 10)")),
    "a model that cannot be imported": (("--model", "own_broken:make"), ("ZeroDivisionError", "own_broken.py, line 1")),
    # files and columns
    "settings file": (("--settings", "missing.json"), ("missing.json", "No such file")),
    "settings that are not JSON": (("--settings", "broken.json"), ("not JSON",)),
    "settings that are a list": (("--settings", "list.json"), ("a JSON list",)),
    "recipe file": (("--recipe", "missing.json"), ("missing.json",)),
    "data file": (("--data", "missing.csv"), ("missing.csv",)),
    "data folder": (("--data", "./missing"), ("missing",)),
    "label column": (("--data", "good.csv", "--set", "table.label=lable"), ("'lable'", "did you mean 'label'?")),
    "no label column": (("--data", "unlabelled.csv"), ("label",)),
    "owner column": (("--data", "good.csv", "--set", "table.owner=whose"), ("'whose'",)),
    "output is a file": (("--out", "good.csv"), ("good.csv",)),
    "store is a file": (("--store", "good.csv"), ("good.csv",)),
    # what to forget
    "selection": (("--forget", "clas=0"), ("'clas=0'", "class=0")),
    "class": (("--forget", "class=10"), ("'10'",)),
    "empty forget set": (("--forget", "ids=none.txt"), ("no record",)),
    "none at random": (("--forget", "random=0"), ("random",)),
    "everything": (("--forget", "ids=everything.txt"), ("every training record",)),
    "all classes but one": (("--forget", "class=0,1,2,3,4,5,6,7,8"), ("one class",)),
    "ids that were not trained on": (("--forget", "ids=stranger.txt"), ("'digits/9999'",)),
    "ids file": (("--forget", "ids=missing.txt"), ("missing.txt",)),
    "owner without owners": (("--forget", "owner=ann"), ("without owners",)),
    # data
    "one class": (("--data", "one_class.csv"), ("class",)),
    "NaN": (("--data", "nan.csv"), ("other", "finite")),
    "infinity": (("--data", "inf.csv"), ("other", "finite")),
    "images of mixed sizes": (("--data", "pictures", "--model", "convnet"), ("9×9", "8×8", "hub.size")),
    "a model for images on a table": (
        ("--data", "good.csv", "--model", "convnet", "--forget", "random=3"),
        ("images",),
    ),
}


def without(options: tuple[str, ...]) -> list[str]:
    """TINY without the options that are given anew."""
    kept = []
    for name, value in zip(TINY[::2], TINY[1::2], strict=True):
        repeated = name in options and name != "--set"
        if not repeated and not ("--settings" in options and name == "--data"):
            kept += [name, value]
    return kept


@pytest.mark.parametrize("name", CASES)
def test_refused_before_anything_is_made(room: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    options, said = CASES[name]
    before = sorted(room.rglob("*"))
    paths = [] if "--out" in options else ["--out", "out"]
    paths += [] if "--store" in options else ["--store", "store"]
    status = main(["audit", *without(options), *paths, *options])
    refused(capsys, status, *said)
    left = [path for path in sorted(room.rglob("*")) if path not in before and path.is_file()]
    assert not (room / "out").exists()
    assert [path for path in left if path.name != "FORMAT"] == []


FOREIGN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "weights that do not fit": ((*IMPORTED, "--unlearned", "other.pt"), ("other.pt", "missing")),
    "a pickle that is more than weights": (
        (*IMPORTED[:-1], "more.pt", "--unlearned", "other.pt"),
        ("more than weights", "Never"),
    ),
    "weights that are text": ((*IMPORTED[:-1], "text.safetensors", "--unlearned", "other.pt"), ("text.safetensors",)),
    "no such weights": ((*IMPORTED, "--unlearned", "missing.pt", "--original", "missing.pt"), ("missing.pt",)),
    "no unlearned weights": (IMPORTED, ("--unlearned",)),
    "no original": ((*IMPORTED[:-2], "--unlearned", "other.pt"), ("--original",)),
    "one name twice": ((*IMPORTED, "--unlearned", "other.pt", "--unlearned", "other=more.pt"), ("'other' twice",)),
    "no forget set": ((*IMPORTED[:6], *IMPORTED[8:], "--unlearned", "other.pt"), ("--forget",)),
    "no model": ((*IMPORTED[:4], *IMPORTED[6:], "--unlearned", "other.pt"), ("--model",)),
    "a random forget set": ((*IMPORTED[:7], "random=5", *IMPORTED[8:], "--unlearned", "other.pt"), ("random=5",)),
    "several seeds": ((*IMPORTED, "--unlearned", "other.pt", "--seeds", "3"), ("--seeds",)),
    "methods": ((*IMPORTED, "--unlearned", "other.pt", "--unlearn", "salun"), ("--unlearn",)),
    "train ids": ((*IMPORTED, "--unlearned", "other.pt", "--train-ids", "stranger.txt"), ("'digits/9999'",)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_weights_are_refused(room: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    options, said = FOREIGN[name]
    refused(capsys, main(["audit", *options, "--out", "out", "--store", "store"]), *said)
    assert not (room / "out").exists()


COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "command": ("audits", ("did you mean 'audit'?",)),
    "kind": ("list unlearner", ("did you mean 'unlearners'?",)),
    "thing": ("show salum", ("did you mean 'salun'?",)),
    "report of nothing": ("report missing", ("missing",)),
    "compare nothing": ("compare missing missing", ("missing",)),
    "compare in another format": ("compare . . --format tex", ("'tex'", "latex")),
    "show a number": ("show own_models:number", ("got int", "torch.nn.Module")),
    "show a module that was made": ("show own_models:module", ("got Linear",)),
    "show nothing of mine": ("show own_models:eleventh", ("did you mean 'eleven'?",)),
    "check a number": ("check own_models:number", ("got int",)),
    "check nothing": ("check salum", ("did you mean 'salun'?",)),
    "check a module": ("check no_such_module:Mine", ("no module",)),
    "check a thing": ("check palimpsest.store:FORMAT", ("int",)),
    "store": ("store ls --store missing", ("missing",)),
    "purge without a store": ("purge --ids stranger.txt --store missing", ("missing",)),
    "purge without ids": ("purge --ids none.txt --store pictures", ("ids",)),
    "train to another format": ("train --out weights.pt", (".safetensors",)),
    "train without a class": ("train --out w.safetensors --exclude class=11", ("'11'",)),
    "unlearn from text": (
        "unlearn --data digits --model linear --weights text.safetensors --with finetune --forget class=0 --out w.safetensors",
        ("text.safetensors",),
    ),
    "unlearn nothing": (
        "unlearn --data digits --model linear --weights other.pt --with finetune --out w.safetensors", ("--forget",),
    ),
    "unlearn with an unknown method": ("unlearn --weights other.pt --with finetun --out w.safetensors", ("'finetune'?",)),
    "unlearn without weights": ("unlearn --with finetune --out w.safetensors", ("--weights",)),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_other_commands_refuse_too(room: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    command, said = COMMANDS[name]
    refused(capsys, main(command.split()), *said)
    assert not list(room.glob("w*.safetensors"))


Setting = tuple[str, str, str, Any]
SETTINGS: list[Setting] = [
    *(("attacks", "uma", "epsilon", value) for value in ((), (-0.1,), (0.0,), (1.5,), (0.1, float("nan")))),
    *(("attacks", "uma", name, 0) for name in ("steps", "step_size", "restarts", "records", "references", "batch_size")),
    *(("attacks", "uma", name, "no such") for name in ("loss", "start", "step_rule", "stop", "layout")),
    ("attacks", "uma", "step_size", float("inf")),
    ("attacks", "uma", "tolerance", -1.0),
    *(("attacks", "confidence_membership", "references", value) for value in (0, -5)),
    *(("verifiers", "relearn_time", name, 0) for name in ("lr", "steps", "every", "batch_size", "records")),
    ("verifiers", "relearn_time", "every", 41),
    *(
        ("unlearners", method, name, value)
        for method in ("finetune", "gradient_ascent", "random_label", "l1_sparse", "salun")
        for name, value in (
            ("lr", 0.0), ("lr", float("nan")), ("lr", float("inf")), ("epochs", 0), ("epochs", -1), ("batch_size", 0),
            ("momentum", 1.0), ("momentum", -0.1), ("weight_decay", -1e-4),
        )
    ),
    ("unlearners", "gradient_ascent", "clip", 0.0),
    ("unlearners", "l1_sparse", "alpha", -1.0),
    ("unlearners", "l1_sparse", "epochs_without_l1", 11),
    *(("unlearners", "salun", "share", value) for value in (-0.1, 1.1, float("nan"))),
    *(("unlearners", "single_gradient", name, 0) for name in ("lr", "epochs", "batch_size")),
    *(("unlearners", "influence", name, 0) for name in ("alpha", "samples", "damping", "tolerance", "iterations")),
    ("unlearners", "influence", "memory", -1.0),
    ("unlearners", "influence", "solver", "no such"),
    *(("unlearners", "features_and_labels", name, 0) for name in ("rate", "damping", "samples", "tolerance", "iterations")),
    *(("unlearners", "features_and_labels", name, "no such") for name in ("order", "replace", "curvature")),
    *(("unlearners", "features_and_labels", "features", value) for value in ((), (-1,), (0, 2.5), (3,))),
    *(("models", name, "width", value) for name in ("convnet", "mlp", "resnet18", "resnet50") for value in (0, -3)),
    ("models", "mlp", "layers", 1),
    *(("data", "digits", name, value) for name in ("validation", "test") for value in (0.0, 1.0)),
]  # fmt: skip
RECIPE: list[tuple[str, Any]] = [
    ("epochs", -1), ("batch_size", 0), ("lr", 0.0), ("lr", float("inf")), ("momentum", 1.0), ("weight_decay", -1.0),
    ("label_smoothing", 1.0), ("optimizer", "no such"), ("schedule", "no such"), ("augment", "no such"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "field", "value"), SETTINGS)
def test_settings_out_of_range(kind: str, name: str, field: str, value: Any) -> None:
    """However the object is made: from words, or by its class."""
    with pytest.raises(BadInput, match=rf"^{name}\.{field}: got .*, expected "):
        make(kind, name, {field: value})
    refuses(find(kind, name)(), field, value, name)


def refuses(made: Any, field: str, value: Any, name: str) -> None:
    """As the class itself would refuse it; its own call is checked for types in tests, which would come first."""
    object.__setattr__(made, field, value)
    with pytest.raises(BadInput, match=rf"^{name}\.{field}: got .*, expected "):
        made.__post_init__()


@pytest.mark.parametrize(("field", "value"), RECIPE)
def test_recipes_out_of_range(field: str, value: Any) -> None:
    refuses(Recipe(), field, value, "recipe")


def test_every_number_of_the_catalog_has_bounds() -> None:
    for kind in FOLDERS:
        for name, cls in members(kind).items():
            for entry in dataclasses.fields(cls):
                if "int" in str(entry.type) or "float" in str(entry.type):
                    assert entry.metadata["bounds"] is not None, f"{name}.{entry.name}"


def test_models_of_ones_own_can_be_shown(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "own_models:eleven"]) == 0
    assert "own_models:eleven (models" in capsys.readouterr().out
    assert main(["show", "uma"]) == 0
    assert "(8/255, 16/255)" in capsys.readouterr().out


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
