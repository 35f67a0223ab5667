"""Settings that an audit searches: validation records decide, and the record says what was tried and taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from palimpsest import options
from palimpsest.audit.searched import deciding
from palimpsest.defend.adversarial_unlearning import AdversarialUnlearning
from palimpsest.errors import BadInput, UnknownName
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.record import Record
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.random_label import RandomLabel
from palimpsest.unlearn.retrain import Retrain
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import plan, run

CASE = {
    "model": Linear(),
    "recipe": Recipe(epochs=20, batch_size=32),
    "unlearners": (Finetune(lr=3.0, epochs=1), RandomLabel(lr=0.02, epochs=1)),
    "attacks": (),
    "verifiers": (Accuracy(),),
    "seeds": (0,),
    "controls": 1,
}
RATES = {"finetune": {"lr": (30.0, 0.01)}}


def taken(record: Record, label: str) -> dict[str, float]:
    return next(cell.settings for cell in record.cells if cell.target == "unlearned" and cell.unlearner == label)


def test_the_value_of_least_error_on_validation_records_is_taken_and_told(tmp_path: Path) -> None:
    record = run(tmp_path, **CASE, search=RATES)
    assert taken(record, "finetune")["lr"] == 0.01, "30 breaks the model"
    assert taken(record, "random_label")["lr"] == 0.02, "which nothing was searched of"
    assert record.settings["search"] == {"finetune": {"lr": [30.0, 0.01]}}
    report = (tmp_path / "out" / "report.md").read_text()
    assert "search" in report
    assert "30" in report
    alone = run(tmp_path, **{**CASE, "unlearners": (Finetune(lr=0.01, epochs=1),)})
    measured = [
        c.measures for r in (record, alone) for c in r.cells if (c.target, c.unlearner) == ("unlearned", "finetune")
    ]
    assert measured[0] == measured[1], "as if it had been set from the start"


def test_each_request_and_each_guarded_method_searches_for_itself(tmp_path: Path) -> None:
    case = {**CASE, "unlearners": (RandomLabel(epochs=1),), "forget": ("class=0", "class=1")}
    record = run(
        tmp_path, **case, defences=(AdversarialUnlearning(steps=1),), search={"random_label": {"lr": (30.0, 0.01)}}
    )
    every = [cell for cell in record.cells if cell.target == "unlearned"]
    assert {(cell.unlearner, cell.request) for cell in every} == {
        (label, request) for label in ("random_label", "random_label+adversarial_unlearning") for request in (0, 1)
    }
    for cell in every:
        assert cell.settings.get("lr", cell.settings.get("unlearner", {}).get("lr")) == 0.01, cell.unlearner


def test_where_every_value_fails_the_cell_says_why(tmp_path: Path) -> None:
    record = run(tmp_path, **{**CASE, "unlearners": (Finetune(epochs=1),)}, search={"finetune": {"lr": (1e60, 1e50)}})
    failed = [cell for cell in record.cells if cell.target == "unlearned"]
    assert failed
    assert all(cell.status == "failed" and "overflow" in str(cell.reason) for cell in failed)


def test_one_value_that_fails_loses_to_one_that_does_not(tmp_path: Path) -> None:
    search = {"finetune": {"lr": (1e60, 0.01)}}
    record = run(tmp_path, **{**CASE, "unlearners": (Finetune(epochs=1),)}, search=search)
    assert taken(record, "finetune")["lr"] == 0.01


def test_forgotten_classes_do_not_decide() -> None:
    split = plan().data.load()
    gone = set(split.train.ids[(split.train.targets == 3).numpy()].tolist())
    left = deciding(split, gone).targets
    assert 3 in split.validation.targets
    assert 3 not in left
    assert len(left) == int((split.validation.targets != 3).sum())
    some = set(split.train.ids[:50].tolist())
    assert torch.equal(deciding(split, some).targets, split.validation.targets)


def test_retraining_for_fewer_passes_costs_fewer(tmp_path: Path) -> None:
    once = run(tmp_path, **{**CASE, "unlearners": (Retrain(), Retrain(epochs=1))})
    costs = {c.unlearner: c.cost["samples"] for c in once.cells if c.target == "unlearned"}
    assert costs["retrain"] == CASE["recipe"].epochs * costs["retrain#2"]


def test_the_command_line_says_it_as_text() -> None:
    words = options.ranges(["FT.lr=0.001, 0.1", "finetune.epochs=2"])
    chosen = options.plan(data="digits", forget=["class=0"], unlearn=["FT"], search=words)
    assert chosen.search == {"finetune": {"lr": (0.001, 0.1), "epochs": (2,)}}


@pytest.mark.parametrize(
    ("search", "kind"),
    [
        ({"salun": {"lr": [0.1]}}, UnknownName),
        ({"finetune": {"rate": [0.1]}}, UnknownName),
        ({"finetune": {"lr": []}}, BadInput),
        ({"finetune": {"lr": [-1]}}, BadInput),
        ({"finetune": {"lr": ["fast"]}}, BadInput),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_trained(search: dict, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        options.plan(data="digits", forget=["class=0"], unlearn=["finetune"], search=search)


def test_a_second_run_makes_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, **CASE, search=RATES)
    shutil.rmtree(tmp_path / "out")
    said: list[str] = []
    second = run(tmp_path, **CASE, search=RATES, say=said.append)
    assert [c.measures for c in first.cells] == [c.measures for c in second.cells]
    assert any("made 0 models and 0 score sets" in text for text in said)
