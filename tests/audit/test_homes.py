"""Methods that need another way of training stand beside the others, each against an original and controls of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palimpsest.audit.board import Board, Place
from palimpsest.audit.judge import Subject, gaps, reading
from palimpsest.catalog import members
from palimpsest.cli import main
from palimpsest.measures.intervals import share
from palimpsest.record import Record, read
from palimpsest.report.compare import compare
from palimpsest.types import Finding

SKIPPED = {
    "certified_removal": "expected a model that is linear",
    "descent_to_delete": "expected a model that is linear",
    "deltagrad": "got a model with BatchNorm2d, expected one without batch norm",
    "image_to_image": "expected one of the task reconstruction",
}
"""The only methods that need not run on the embedded default, and why: three are for other models, one for another task."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every method on a few digits, with everything but their number as in the embedded default."""
    place = tmp_path_factory.mktemp("all")
    asked = [
        "audit",
        "--unlearn",
        "all",
        "--limit",
        "120",
        "--seeds",
        "1",
        "--controls",
        "2",
        "--verify",
        "retrain_gap",
    ]
    few = ["--set", "recipe.epochs=2", "--attack", "confidence_membership"]
    held = ["--set", "digits.validation=0.25"]  # some of class 0 among them, for SCRUB+R
    assert main([*asked, *few, *held, "--store", str(place / "store"), "--out", str(place / "out")]) == 0
    return place / "out"


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return read(folder)


def test_all_gives_every_method_a_row(record: Record) -> None:
    assert [row.unlearner for row in record.verdicts].count("retrain") == 1
    assert {row.unlearner for row in record.verdicts} == set(members("unlearners"))


def test_only_methods_for_other_models_are_skipped_and_say_why(record: Record) -> None:
    skipped = [cell for cell in record.cells if cell.unlearner and cell.status == "skipped"]
    assert {cell.unlearner for cell in skipped} == SKIPPED.keys()
    for cell in skipped:
        assert SKIPPED[cell.unlearner] in cell.reason, cell.unlearner
    for row in record.verdicts:
        if row.unlearner in SKIPPED:
            assert row.verdict == Finding.INCONCLUSIVE
            assert "not run here" in row.because[0]
    assert not [cell for cell in record.cells if cell.status == "failed"]


def test_each_way_of_training_has_its_own_original_and_controls(record: Record) -> None:
    ways = {cell.learner for cell in record.cells if cell.unlearner not in SKIPPED}
    assert ways == {"plain", "recorded", "sharded"}
    for way in ways:
        shared = {(c.target, c.replica) for c in record.cells if c.learner == way and not c.unlearner}
        assert shared == {("original", 0), ("retrained", 0), ("retrained", 1)}
    assert record.settings["homes"].keys() == {"recorded", "sharded"}


def test_every_cell_says_what_its_model_cost(record: Record) -> None:
    for cell in record.cells:
        if cell.status == "ok":
            assert cell.cost.keys() == {"seconds", "samples", "gradient_evaluations", "peak_memory"}
            assert min(cell.cost.values()) >= 0


def test_a_recipe_that_a_method_needs_is_its_own(tmp_path: Path) -> None:
    few = ["--model", "mlp", "--limit", "120", "--seeds", "1", "--controls", "1", "--set", "recipe.epochs=1"]
    where = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    assert main(["audit", "--unlearn", "finetune,deltagrad", "--attack", "confidence_membership", *few, *where]) == 0
    found = read(tmp_path / "out")
    assert {(c.unlearner, c.learner) for c in found.cells if c.unlearner and c.status == "ok"} == {
        ("finetune", "plain"),
        ("deltagrad", "recorded, momentum 0.0"),
    }
    assert found.settings["homes"]["recorded, momentum 0.0"]["recipe"]["momentum"] == 0
    assert found.recipe is not None
    assert found.recipe["momentum"] == 0.9


def test_a_method_is_compared_with_the_controls_of_its_own_learner(record: Record) -> None:
    for name, way in (("sisa", "sharded"), ("amnesiac", "recorded"), ("finetune", "plain")):
        rows = [r for r in record.comparisons if r.unlearner == name and r.difference.name == "test_accuracy"]
        control = [
            m.value
            for c in record.cells
            if (c.learner, c.target, c.verifier) == (way, "retrained", "accuracy")
            for m in c.measures
            if m.name == "test_accuracy"
        ]
        (found,) = [row.control for row in rows if row.minus == "retrained"]
        assert found == pytest.approx(sum(control) / 2)


def test_a_verdict_goes_by_the_controls_of_its_own_learner() -> None:
    """And what failed on another learner's controls is nothing to it."""
    board = Board()
    said = {("unlearned", "sisa"): 0.7, ("retrained", ""): 0.1, ("retrained", "sharded"): 0.6, ("original", ""): 0.2}
    for (target, label), value in {**said, ("original", "sharded"): 0.9}.items():
        right = np.arange(100) < 100 * value
        found = share("forget_accuracy", right)
        board.measures[Place("accuracy", target, 0, label)] = {found.key: found}
    head = {"attack": False, "settings": {}, "by_settings": {}}
    board.fail(Place("accuracy", "retrained", 0, ""), "too bad", **head, learner="plain")
    subject = Subject("sisa", {}, 0, True, "sharded", "sharded")
    read = reading(board, subject, "accuracy", ("forget_accuracy", ()), [0], 0.95, False)
    assert read is not None
    assert read.minus_retrained is not None
    assert read.minus_original is not None
    assert read.minus_retrained.value == pytest.approx(0.1)
    assert read.minus_original.value == pytest.approx(-0.2)
    assert gaps(board, subject, ["accuracy"]) == []
    assert len(gaps(board, Subject("finetune", {}, 0, True), ["accuracy"])) == 1


def test_a_request_is_recorded_once_for_all_ways_of_training(record: Record) -> None:
    assert [(request.seed, request.index) for request in record.requests] == [(0, 0)]


def test_all_does_not_skip_what_the_audits_own_learner_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    few = ["--limit", "100", "--learner", "sharded", "--set", "sharded.shards=500"]
    assert main(["audit", "--unlearn", "all", *few, *where]) == 2
    assert "sharded.shards: got 500" in capsys.readouterr().err


def test_an_ensemble_has_no_last_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    few = ["--limit", "100", "--learner", "sharded", "--set", "exact_unlearning_k.k=1"]
    assert main(["audit", "--unlearn", "exact_unlearning_k", *few, *where]) == 2
    assert "exact_unlearning_k: got an ensemble" in capsys.readouterr().err


def test_the_report_names_whose_controls_they_are(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    for name in ("retrained (sharded)", "original (recorded)"):
        assert name in text


def test_a_method_that_was_named_is_not_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["audit", "--limit", "100", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    assert main([*asked, "--unlearn", "finetune,certified_removal"]) == 2
    assert "expected a model that is linear" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_methods_that_all_need_one_learner_are_the_audits_own(folder: Path, tmp_path: Path) -> None:
    """And compare sets its controls beside those of the same learner, which another audit had for one method among others."""
    few = ["--limit", "120", "--seeds", "1", "--controls", "1", "--set", "recipe.epochs=1"]
    asked = ["audit", "--unlearn", "sisa", *few, "--attack", "confidence_membership", "--verify", "accuracy"]
    assert main([*asked, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 0
    found = read(tmp_path / "out")
    assert found.learner["name"] == "sharded"
    assert {cell.learner for cell in found.cells} == {"sharded"}
    table = compare(folder, tmp_path / "out")
    assert {row.target for row in table.rows if row.unlearner == "sharded"} == {"original", "retrained"}
    assert {row.unlearner for row in table.rows} == {"sharded", "sisa"}
    alone = next(note for note in table.notes if note.startswith("only in the first"))
    assert "original (confidence_membership)" in alone
    assert "(sharded)" not in alone


@pytest.mark.parametrize(
    ("method", "wrong", "told"),
    [
        ("exact_unlearning_k", "exact_unlearning_k.k=50", "exact_unlearning_k.k: got 50, expected at most"),
        ("catastrophic_forgetting_k", "catastrophic_forgetting_k.k=50", "catastrophic_forgetting_k.k: got 50"),
        ("sisa", "sharded.shards=500", "sharded.shards: got 500, expected at most"),
        ("amnesiac", "recorded.memory=0.0001", "recorded.memory: got a record of"),
        ("negative_gradient", "negative_gradient.alpha=1.5", "negative_gradient.alpha: got 1.5"),
        ("noisy_gradient_descent", "noisy_gradient_descent.sigma=-1", "noisy_gradient_descent.sigma: got -1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_trained(
    method: str, wrong: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    assert main(["audit", "--limit", "100", "--unlearn", f"retrain,{method}", "--set", wrong, *where]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.glob("**/*.safetensors"))
    assert not (tmp_path / "out").exists()
