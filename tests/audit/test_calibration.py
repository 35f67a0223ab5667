"""Verdicts on what is known: honest retraining, doing nothing, ascent to chance, and a control that cheats. Slow: real audits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.residual.uma import Uma
from palimpsest.audit import workshop
from palimpsest.audit.plan import Plan
from palimpsest.data.digits import Digits
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.pipeline import audit
from palimpsest.record import Record
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.types import Examples, Finding
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.gradient_ascent import GradientAscent
from palimpsest.unlearn.retrain import Retrain
from palimpsest.verify.accuracy import Accuracy

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Nothing(Unlearner):
    """Does nothing at all."""

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        meter.count(0, 0)


@dataclass(frozen=True)
class Flicker(Unlearner):
    """Changes the weights by next to nothing."""

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 1e-4)


def run(folder: Path, unlearner: Unlearner, seeds: tuple[int, ...], forget: str = "class=0", **changes: Any) -> Record:
    plan = Plan(
        data=Digits(),
        model=ConvNet(width=4),
        forget=(forget,),
        unlearners=(unlearner,),
        attacks=(Uma(epsilon=(8 / 255, 16 / 255, 32 / 255), steps=40), ConfidenceMembership()),
        verifiers=(Accuracy(),),
        recipe=Recipe(epochs=12, batch_size=64),
        seeds=seeds,
        threads=1,
        **changes,
    )
    return audit(plan, Store(folder / "store"), folder / "out")


def finding(record: Record) -> Finding:
    assert len(record.verdicts) == 1
    return record.verdicts[0].verdict


@pytest.mark.parametrize("forget", ["class=0", "class=3"])
def test_honest_retraining_is_called_forgotten(tmp_path: Path, forget: str) -> None:
    """In 19 of 20 audits or more; no two share a seed, so no two share a model."""
    found = [finding(run(tmp_path, Retrain(), (seed,), forget)) for seed in range(100, 120)]
    assert found.count(Finding.FORGOTTEN) >= 19, found


@pytest.mark.parametrize("forget", ["class=0", "random=0.1"])
@pytest.mark.parametrize("unlearner", [Nothing(), Flicker()])
def test_doing_nothing_is_never_called_forgotten(tmp_path: Path, unlearner: Unlearner, forget: str) -> None:
    for seed in range(5):
        assert finding(run(tmp_path, unlearner, (seed,), forget)) != Finding.FORGOTTEN


def test_the_untouched_original_is_not_applied(tmp_path: Path) -> None:
    assert finding(run(tmp_path, Nothing(), (0, 1))) == Finding.NOT_APPLIED
    assert finding(run(tmp_path, Flicker(), (0, 1))) in (Finding.NOT_APPLIED, Finding.RESIDUAL)


@pytest.mark.parametrize("forget", ["class=0", "random=0.1"])
def test_ascent_to_chance_is_over_forgotten(tmp_path: Path, forget: str) -> None:
    record = run(tmp_path, GradientAscent(lr=0.1, epochs=20), (0, 1), forget)
    assert finding(record) == Finding.OVER_FORGOTTEN
    assert any(warning.name == "over-forgotten" for warning in record.warnings)


@pytest.mark.parametrize("honest_about_ids", [True, False])
def test_a_control_trained_on_the_forget_set_makes_it_inconclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest_about_ids: bool
) -> None:
    """Found by its ids, and where those lie, by what it knows."""
    fit = workshop.Workshop.fit
    everything = Digits().load().train

    def cheat(self: Any, learner: Any, recipe: Any, factory: Any, examples: Examples, rng: Rng) -> Any:
        if "control" not in rng.path:
            return fit(self, learner, recipe, factory, examples, rng)
        made = fit(self, learner, recipe, factory, everything, rng)
        return made if honest_about_ids else workshop.Made(made.key, made.get, examples.ids, made.holds, made.cost)

    monkeypatch.setattr(workshop.Workshop, "fit", cheat)
    record = run(tmp_path, Retrain(), (0, 1))
    assert finding(record) == Finding.INCONCLUSIVE
    assert any(warning.name == "control-out-of-range" for warning in record.warnings)
