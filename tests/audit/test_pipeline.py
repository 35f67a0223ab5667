"""The flow from data to record, on digits."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.record import Record, read, read_scores
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.retrain import Retrain
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import numbers, plan, run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("small")
    return folder, run(folder)


def test_cells_of_every_target(small: tuple[Path, Record]) -> None:
    _, record = small
    seen = {(cell.unlearner, cell.target, cell.replica, cell.attack or cell.verifier) for cell in record.cells}
    for by in ("uma", "confidence_membership", "accuracy", "retrain_gap", "robust_unlearning", "relearn_time"):
        assert ("", "original", 0, by) in seen
        assert {("", "retrained", 0, by), ("", "retrained", 1, by)} <= seen
        assert {("retrain", "unlearned", 0, by), ("finetune", "unlearned", 0, by)} <= seen
    for by in ("uma", "accuracy", "relearn_time"):
        assert {("finetune", "bias-matched", 0, by), ("finetune", "bias-matched", 1, by)} <= seen
    assert ("finetune", "bias-matched", 0, "confidence_membership") not in seen
    assert all(cell.status == "ok" for cell in record.cells), [cell.reason for cell in record.cells]


def test_record_and_scores_are_read_back(small: tuple[Path, Record]) -> None:
    folder, record = small
    assert read(folder / "out") == record
    for cell in record.cells:
        assert cell.scores is not None
        assert len(read_scores(folder / "out", cell.scores).ids)
    assert (folder / "out" / "report.html").exists()
    assert (folder / "out" / "report.md").exists()


def test_measures_are_functions_of_the_stored_scores(small: tuple[Path, Record]) -> None:
    folder, record = small
    attack = plan().attacks[0]
    for cell in record.cells:
        if cell.attack == "uma":
            assert cell.scores
            again = {m.key: (m.value, m.low, m.high) for m in attack.measure(read_scores(folder / "out", cell.scores))}
            assert {(m.name, tuple(sorted(m.at.items()))): (m.value, m.low, m.high) for m in cell.measures} == again


def test_second_run_makes_nothing(small: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record = small
    said: list[str] = []

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was trained or attacked again")

    monkeypatch.setattr("palimpsest.learn.loop.Meter.step", forbidden)
    monkeypatch.setattr("palimpsest.attack.base.Attack.run", forbidden)
    again = run(folder, out="again", say=said.append, reported=False)
    assert numbers(again) == numbers(record)
    assert any("made 0 models and 0 score sets" in line for line in said)


def test_other_settings_make_other_models(small: tuple[Path, Record]) -> None:
    folder, _ = small
    said: list[str] = []
    asked = {"unlearners": (Retrain(),), "attacks": (), "verifiers": (Accuracy(),), "seeds": (1,)}
    run(folder, out="other", say=said.append, reported=False, **asked)
    assert any("made 4 models" in line for line in said)


def test_several_requests_in_order(tmp_path: Path) -> None:
    record = run(
        tmp_path, forget=("random=20", "class=1"), attacks=(), verifiers=(Accuracy(),), controls=1, reported=False
    )
    first, second = record.requests
    assert first.selection == "random=20"
    assert first.classes == []
    assert second.classes == [1]
    assert not set(first.ids) & set(second.ids)
    assert {cell.request for cell in record.cells} == {0, 1}


@dataclass(frozen=True)
class Explodes(Unlearner):
    """Leaves weights that are not finite."""

    ran: ClassVar[list[int]] = []

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        self.ran.append(rng.seed)
        with torch.no_grad():
            next(model.parameters()).fill_(torch.nan)


def test_failed_method_is_recorded_as_failed(small: tuple[Path, Record], tmp_path: Path) -> None:
    shutil.copytree(small[0] / "store", tmp_path / "store")  # all but the method that fails is there
    record = run(tmp_path, unlearners=(Explodes(), Retrain()), reported=False)
    label = f"{__name__}:Explodes"
    mine = [cell for cell in record.cells if cell.unlearner == label]
    assert mine
    assert all(cell.status == "failed" and "not finite" in cell.reason and not cell.measures for cell in mine)
    assert next(row for row in record.verdicts if row.unlearner == label).verdict == "inconclusive"
    assert any(w.name == "failed-cell" for w in record.warnings)
    assert any(cell.status == "ok" for cell in record.cells if cell.unlearner == "retrain")
    ran = len(Explodes.ran)
    again = run(tmp_path, unlearners=(Explodes(), Retrain()), reported=False)
    assert len(Explodes.ran) == ran > 0
    assert [cell.reason for cell in again.cells] == [cell.reason for cell in record.cells]


def test_same_audit_twice_is_the_same(small: tuple[Path, Record], tmp_path: Path) -> None:
    assert numbers(run(tmp_path, reported=False)) == numbers(small[1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"forget": ()}, "--forget"),
        ({"controls": 0}, "--controls"),
        ({"unlearners": ()}, "--unlearn"),
        ({"attacks": (), "verifiers": ()}, "--attack"),
    ],
)
def test_plans_that_cannot_be_carried_out(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        plan(**changes)


def test_unlearned_model_holds_what_its_original_held(small: tuple[Path, Record]) -> None:
    """An approximate method's weights still come from the forgotten records; retraining's do not."""
    folder, record = small
    store = Store(folder / "store")
    forgotten = set(record.requests[0].ids)
    holding = {}
    for entry in store.entries():
        if entry.kind == "model":
            name = entry.spec.get("unlearner", {}).get("name", "fit")
            holding.setdefault(name, []).append(bool(forgotten & set(store.held(entry.holds))))
    assert set(holding["finetune"]) == {True}
    assert set(holding["retrain"]) == {False}
    assert set(holding["fit"]) == {False, True}


def test_purge_removes_what_holds_a_record(small: tuple[Path, Record], tmp_path: Path) -> None:
    folder, record = small
    store = Store(shutil.copytree(folder / "store", tmp_path / "store"))
    one = record.requests[0].ids[0]
    store.purge([one])
    left = list(store.entries())
    assert left, "retrained models never saw the record and stay"
    assert all(one not in store.held(entry.holds) for entry in left)
