"""An audit of the certified methods: two requests in order, exact counts, and from the store the second time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import homes, stages
from palimpsest.audit.workshop import Workshop
from palimpsest.cli import main
from palimpsest.data.breast_cancer import BreastCancer
from palimpsest.learn.objective_perturbed import ObjectivePerturbed
from palimpsest.learn.output_perturbed import OutputPerturbed
from palimpsest.models.linear import Linear
from palimpsest.record import Record, read
from palimpsest.rng import determinism
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.unlearn.certified_removal import CertifiedRemoval
from palimpsest.unlearn.descent_to_delete import DescentToDelete
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import numbers, run

ASKED: dict[str, Any] = {
    "data": BreastCancer(), "model": Linear(), "verifiers": (Accuracy(),), "attacks": (ConfidenceMembership(),),
    "forget": ("random=5", "random=3"), "controls": 2,
}  # fmt: skip
METHODS = {
    "certified_removal": {"learner": ObjectivePerturbed(), "unlearners": (CertifiedRemoval(bound="tight"),)},
    "descent_to_delete": {"learner": OutputPerturbed(), "unlearners": (DescentToDelete(),)},
}


@pytest.fixture(scope="module", params=sorted(METHODS))
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Record]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, run(folder, **ASKED, **METHODS[request.param], reported=False)


def test_both_requests_are_granted(ran: tuple[str, Path, Record]) -> None:
    name, _, record = ran
    assert {cell.request for cell in record.cells if cell.unlearner == name} == {0, 1}
    assert all(cell.status == "ok" for cell in record.cells), [cell.reason for cell in record.cells]
    assert [len(request.ids) for request in record.requests] == [5, 3]
    assert not set(record.requests[0].ids) & set(record.requests[1].ids)


def test_the_verdict_is_sane(ran: tuple[str, Path, Record]) -> None:
    """It classifies as well as retraining, on records kept and on test records; nothing says that the records are still in it."""
    name, _, record = ran
    verdicts = [row.verdict for row in record.verdicts if row.unlearner == name]
    assert verdicts
    assert not {str(verdict) for verdict in verdicts} & {"residual", "over-forgotten", "suppressed-head"}, (
        record.verdicts
    )
    for measure in ("retain_accuracy", "test_accuracy"):
        of = {
            target: [
                m.value for cell in record.cells if cell.target == target for m in cell.measures if m.name == measure
            ]
            for target in ("unlearned", "retrained")
        }
        assert min(of["unlearned"]) > 0.9
        assert abs(min(of["unlearned"]) - min(of["retrained"])) < 0.03


def test_a_second_run_takes_all_from_the_store(ran: tuple[str, Path, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    name, folder, record = ran

    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("palimpsest.learn.base.Learner.fit", refuse)
    monkeypatch.setattr("palimpsest.unlearn.base.Unlearner.unlearn", refuse)
    assert numbers(run(folder, **ASKED, **METHODS[name], reported=False)) == numbers(record)


def test_budget_and_secrets_come_back_from_the_store(ran: tuple[str, Path, Record], tmp_path: Path) -> None:
    """What the second request goes on from is what the first one left, whether it was made just now or read."""
    name, _, _ = ran
    plan = replace(Plan(**{**ASKED, **METHODS[name]}), seeds=(0,), threads=1)
    split = plan.data.load()
    found = []
    for _ in range(2):
        shop = Workshop(Store(tmp_path), Classification.of(split), split.fingerprint)
        with determinism(1):
            made = [stage.unlearned[name].trained for stage in stages(plan, homes(plan)[0], split, shop, 0)]  # type: ignore[union-attr]
        found.append([(trained.budget, sorted(trained.kept), len(trained.ids)) for trained in made])
    assert found[0] == found[1]
    (first, _, _), (second, _, _) = found[0]
    assert 0 < first <= second <= 1
    assert [count for *_, count in found[0]] == [len(split.train) - 5, len(split.train) - 8]


def test_a_model_that_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["audit", "--data", "breast_cancer", "--model", "mlp", "--learner", "objective_perturbed", "--unlearn"]
    where = ["--forget", "random=4", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    assert main([*asked, "certified_removal", *where]) == 2
    assert "--model linear" in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("**/*.safetensors"))


def test_from_the_command_line(tmp_path: Path) -> None:
    asked = [
        "audit",
        "--data",
        "breast_cancer",
        "--model",
        "linear",
        "--learner",
        "objective_perturbed",
        "--seeds",
        "1",
    ]
    asked += ["--unlearn", "retrain,certified_removal", "--attack", "confidence_membership", "--forget", "random=4"]
    assert main([*asked, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"), "--threads", "1"]) == 0
    record = read(tmp_path / "out")
    assert {row.unlearner for row in record.verdicts} == {"retrain", "certified_removal"}
    assert all(cell.status == "ok" for cell in record.cells), [cell.reason for cell in record.cells]
