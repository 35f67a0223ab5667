"""Bad input gets one clear line that says got, expected and what to do, exit 2, and nothing half-written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from palimpsest.catalog import FOLDERS, find, make, members
from palimpsest.cli import main
from palimpsest.errors import BadInput
from palimpsest.learn.recipe import Recipe
from tests.command_line import changed
from tests.refusals import furnished, refused


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return furnished(tmp_path, monkeypatch)


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
    "methods in two options": (
        ("--unlearn", "retrain", "--unlearn=finetune"),
        ("--unlearn: got 2 of them", "separate names by commas"),
    ),
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


@pytest.mark.parametrize("name", CASES)
def test_refused_before_anything_is_made(room: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    options, said = CASES[name]
    before = sorted(room.rglob("*"))
    paths = [] if "--out" in options else ["--out", "out"]
    paths += [] if "--store" in options else ["--store", "store"]
    status = main(["audit", *changed(*options), *paths])
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
    "unlearn with a method that needs more than weights": (
        "unlearn --data digits --model linear --weights other.pt --with sisa --forget class=0 --out w.safetensors",
        ("--with: got sisa", "palimpsest audit --unlearn sisa"),
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
    *(("data", "digits", name, value) for name, value in (("validation", -0.1), ("validation", 1.0), ("test", 0.0), ("test", 1.0))),
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
                kind = str(entry.type)
                if not kind.startswith("Literal") and ("int" in kind or "float" in kind):
                    assert entry.metadata["bounds"] is not None, f"{name}.{entry.name}"


def test_models_of_ones_own_can_be_shown(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "own_models:eleven"]) == 0
    assert "own_models:eleven (models" in capsys.readouterr().out
    assert main(["show", "uma"]) == 0
    assert "(8/255, 16/255)" in capsys.readouterr().out
