"""Separate requests: each of the original alone, taken together; what two models give away, beside placebo and known leak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palimpsest import record as records
from palimpsest import report
from palimpsest.attack.leakage.feature_inversion import FeatureInversion
from palimpsest.attack.leakage.model_inversion import ModelInversion
from palimpsest.audit.board import Board, Place
from palimpsest.audit.examine import skip
from palimpsest.audit.requests import chosen_requests
from palimpsest.audit.separate import together
from palimpsest.catalog import name_of
from palimpsest.data.digits import Digits
from palimpsest.errors import BadInput
from palimpsest.forget.selection import each
from palimpsest.learn.finetuned import Finetuned
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.measures.intervals import mean
from palimpsest.models.linear import Linear
from palimpsest.record import Record
from palimpsest.report import panels
from palimpsest.report.numbers import Numbers
from palimpsest.task import Classification
from palimpsest.types import Cost, Leak, Scores
from palimpsest.unlearn.retrain import Retrain
from palimpsest.unlearn.single_gradient import SingleGradient
from palimpsest.verify.accuracy import Accuracy
from palimpsest.workers import Workers
from tests.audit.small import plan, run

INVERSION = FeatureInversion(
    iterations=150, restarts=1, total_variation=0.0, batching="loop", decoys=20, extractor_width=2, extractor_epochs=1
)
CASE = {
    "data": Digits(limit=400, public=0.6),
    "model": Linear(),
    "learner": Finetuned(pretraining_epochs=8, pretraining_lr=0.05),
    "recipe": Recipe(epochs=1, lr=1e-3, momentum=0.0, weight_decay=0.0, schedule="constant"),
    "forget": ("random=1",) * 5,
    "separate": True,
    "unlearners": (Retrain(), SingleGradient()),
    "attacks": (INVERSION,),
    "verifiers": (Accuracy(),),
    "controls": 1,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("separate")
    return folder, run(folder, **CASE)


def test_five_requests_are_one_row_a_model(done: tuple[Path, Record]) -> None:
    record = done[1]
    (request,) = record.requests
    assert request.selection == "5 × random=1, each alone"
    assert len(set(request.ids)) == 5
    places = [(cell.target, cell.unlearner, cell.attack) for cell in record.cells if cell.attack]
    assert places == [
        ("known-leak", "", "feature_inversion"),
        ("unlearned", "retrain", "feature_inversion"),
        ("placebo", "retrain", "feature_inversion"),
        ("unlearned", "single_gradient", "feature_inversion"),
        ("placebo", "single_gradient", "feature_inversion"),
    ]
    assert {cell.request for cell in record.cells} == {0}
    rank = next(m for c in record.cells if c.target == "known-leak" for m in c.measures if m.name.endswith(".rank"))
    assert rank.n == 5


def test_each_request_starts_from_the_original(done: tuple[Path, Record]) -> None:
    """The retained records of each are all but its own one."""
    folder, record = done
    cell = next(c for c in record.cells if c.verifier == "accuracy" and c.unlearner == "retrain")
    scores = records.read_scores(folder / "out", str(cell.scores))
    train = len(CASE["data"].load().train)  # type: ignore[attr-defined]
    assert (scores["group"] == 0).sum() == 5 * (train - 1)
    (measure,) = (m for m in cell.measures if m.name == "retain_accuracy")
    assert measure.n == train - 1  # a mean over requests, not so many more records


def test_the_known_leak_is_read_and_the_placebo_is_not(done: tuple[Path, Record]) -> None:
    record = done[1]
    assert [(row.unlearner, row.attack) for row in record.leaks] == [
        ("retrain", "feature_inversion"),
        ("single_gradient", "feature_inversion"),
    ]
    for row in record.leaks:
        assert row.known_leak is not None
        assert row.known_leak.low > 0.1
        assert "over the placebo" in row.because[0]
    single = record.leaks[1]
    assert single.state is Leak.LEAKED
    assert single.value is not None
    assert single.value > 0.95


def test_the_guess_on_a_placebo_is_the_one_on_the_method(done: tuple[Path, Record]) -> None:
    """Five known leaks and five deletions by each of two methods were searched for; the placebos are judged by the same guesses."""
    folder, _ = done
    kept = list((folder / "store" / "artifacts" / "guess").rglob("manifest.json"))
    assert len(kept) == 15


def test_the_report_shows_leaks_and_what_was_recovered(done: tuple[Path, Record]) -> None:
    folder, record = done
    html = (folder / "out" / "report.html").read_text()
    assert "What deletions give away" in html
    assert "Recovered images" in html
    assert "Who is exposed most" in html
    cell = next(c for c in record.cells if c.target == "unlearned" and c.unlearner == "single_gradient" and c.attack)
    scores = records.read_scores(folder / "out", str(cell.scores))
    order = np.lexsort((scores["mse"], -scores["rank"]))
    _, _, exposed = (folder / "out" / "report.md").read_text().partition("Record exposed most")
    (line,) = (line for line in exposed.splitlines() if line.startswith("| single_gradient") and " of " in line)
    assert scores.ids[order[0]] in line
    found = panels.load(folder / "out")
    assert [(one.target, one.unlearner, len(one)) for one in found] == [
        ("known-leak", "", 5),
        ("unlearned", "retrain", 5),
        ("unlearned", "single_gradient", 5),
    ]
    assert all(isinstance(one, panels.Recovery) and one.images.shape[1:] == (2, 1, 8, 8) for one in found)
    assert panels.purge(folder / "out", [record.requests[0].ids[0]]) == 3
    report.write(folder / "out")
    assert "Recovered images" not in (folder / "out" / "report.html").read_text()


@pytest.mark.slow
def test_every_number_is_taken_again_from_the_scores(done: tuple[Path, Record]) -> None:
    """A bundle of a study would be refused otherwise. What is no comparison of two models is a mean over requests, whose unseen
    records differ."""
    folder, record = done
    numbers = Numbers(record, folder / "out", resample=True)
    assert all(measures for measures in numbers.measures)
    assert not numbers.unreadable


def test_workers_find_the_same(done: tuple[Path, Record], tmp_path: Path) -> None:
    again = run(tmp_path, workers=Workers(2), reported=False, **CASE)
    assert [cell.measures for cell in again.cells] == [cell.measures for cell in done[1].cells]
    assert again.leaks == done[1].leaks


def test_random_requests_name_no_record_twice_and_others_may(digits_task: Classification) -> None:
    split = Digits(limit=300).load()
    chosen = plan(forget=("random=3",) * 4 + ("class=0:0.5", "class=0"), separate=True)
    requests = chosen_requests(chosen, split, digits_task, 0)
    drawn = [name for request in requests[:4] for name in request.ids]
    assert len(set(drawn)) == 12
    assert set(requests[4].ids) <= set(requests[5].ids)


def test_every_record_of_a_few_can_be_deleted_alone(digits_task: Classification) -> None:
    split = Digits(limit=300, public=0.5, private=4).load()
    requests = chosen_requests(plan(forget=("random=1",) * 4, separate=True), split, digits_task, 0)
    assert {name for request in requests for name in request.ids} == set(split.train.ids.tolist())
    with pytest.raises(BadInput, match=r"got retain records of one class|got every training record"):
        chosen_requests(plan(forget=("random=1",) * 4), split, digits_task, 0)


def test_many_records_in_requests_of_a_few() -> None:
    assert each("random=17/8") == ("random=8", "random=8", "random=1")
    assert each("class=0:0.5") == ("class=0:0.5",)
    for wrong in ("random=8/0", "random=8/9", "random=0.5/2"):
        with pytest.raises(BadInput, match="whole numbers, as in random=100/8"):
            each(wrong)


def test_a_placebo_needs_unseen_records(tmp_path: Path) -> None:
    """A whole class has more training records than held-out ones: the placebo fails and says why, the rest goes on."""
    quick = FeatureInversion(iterations=2, restarts=1, batching="loop", extractor_width=2, extractor_epochs=1)
    whole = {
        "data": Digits(limit=400, test=0.05),
        "learner": Plain(),
        "forget": ("class=0",),
        "separate": False,
        "attacks": (quick,),
    }
    record = run(tmp_path, reported=False, **{**CASE, **whole})
    assert [name_of(quick), "failed"] in [
        [cell.attack, cell.status] for cell in record.cells if cell.target == "placebo"
    ]
    assert all(row.state is Leak.INCONCLUSIVE for row in record.leaks)
    assert any("samples and" in reason for row in record.leaks for reason in row.because)


def test_what_cannot_be_taken_together_fails_alone() -> None:
    """Scores of two requests that do not have the same columns: this cell is lost, the other one and the audit are not."""
    asked = plan(**CASE)
    boards = []
    for request, names in enumerate((("rank", "mse"), ("rank",))):
        board = Board()
        for by, columns in ((INVERSION, names), (Accuracy(), ("group",))):
            scores = Scores("record", np.array([f"digits/{request}"]), {name: np.zeros(1) for name in columns})
            board.add(
                Place(name_of(by), "original", 0),
                attack=by is INVERSION,
                settings={},
                by_settings={},
                learner="plain",
                seconds=1.0,
                cost=Cost(),
                key=f"{name_of(by)} {request}",
                scores=scores,
                measures=[mean("accuracy", np.zeros(3))] if by is not INVERSION else [],
            )
        boards.append(board)
    lost, kept = together(asked, boards).cells
    assert (lost.status, lost.scores, lost.measures) == ("failed", None, [])
    assert "got parts of different kinds" in lost.reason
    assert (kept.status, len(kept.measures)) == ("ok", 1)


def test_a_method_that_is_skipped_has_one_row() -> None:
    board = Board()
    asked = replace(plan(**CASE), skipped={"retrain": "not here"})
    skip(asked, 0, board)
    assert [(cell.request, cell.status) for cell in board.cells] == [(0, "skipped")] * 2
    board = Board()
    skip(replace(asked, separate=False), 0, board)
    assert len(board.cells) == 2 * len(asked.forget)


def test_an_attack_on_one_model_says_nothing_of_a_difference(tmp_path: Path) -> None:
    baseline = ModelInversion(iterations=3, extractor_width=2, extractor_epochs=1, decoys=20)
    record = run(tmp_path, reported=False, **{**CASE, "forget": ("random=1",) * 2, "attacks": (baseline,)})
    assert {cell.status for cell in record.cells} == {"ok"}
    assert record.leaks == []
