"""What failed, and what was not measured, is never counted as found clean."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import palimpsest
from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.residual.uma import Uma
from palimpsest.case import Case
from palimpsest.catalog import name_of
from palimpsest.types import Finding
from palimpsest.unlearn.gradient_ascent import GradientAscent
from palimpsest.unlearn.retrain import Retrain
from tests.audit.small import run


def failing_on(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Callable[..., Any] = Uma.score

    def score(self: Uma, guess: Any, case: Case) -> Any:
        if case.target == target:
            raise RuntimeError("out of memory")
        return whole(self, guess, case)

    monkeypatch.setattr(Uma, "score", score)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the models and with all scores but those of UMA."""
    folder = tmp_path_factory.mktemp("before")
    run(folder, unlearners=(Retrain(),), attacks=(ConfidenceMembership(),), reported=False)
    return folder / "store"


@pytest.mark.parametrize("target", ["unlearned", "retrained", "original"])
def test_a_failed_attack_clears_nobody(
    target: str, before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_on(target, monkeypatch)
    shutil.copytree(before, tmp_path / "store")
    record = run(tmp_path, unlearners=(Retrain(),), reported=False)
    assert [row.verdict for row in record.verdicts] == [Finding.INCONCLUSIVE]
    assert any("out of memory" in reason for reason in record.verdicts[0].because)
    assert not any(w.name == "not-decisive" and w.message.startswith("uma") for w in record.warnings)


def test_accuracy_is_measured_whatever_else_is_chosen(tmp_path: Path) -> None:
    """Without it, a model that knows nothing any more would pass for one that forgot."""
    words: dict[str, Any] = {"data": "digits", "model": "linear", "forget": ["class=0"], "attack": ["uma"]}
    plan = palimpsest.plan(**words, unlearn=["gradient_ascent"], verify=["retrain_gap"])
    assert [name_of(by) for by in plan.verifiers] == ["accuracy", "retrain_gap"]
    without = run(tmp_path, unlearners=(GradientAscent(lr=1.0, epochs=20),), verifiers=(), reported=False)
    assert without.verdicts[0].verdict != Finding.FORGOTTEN
