"""What every verifier must pass."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from palimpsest import contract
from palimpsest.catalog import members
from palimpsest.threat import same_weights
from palimpsest.types import Measure
from palimpsest.verify.base import Verifier
from tests.contract.situations import bench_of, situation, situation_of

NAMES = sorted(members("verifiers"))
QUICK: dict[str, dict[str, Any]] = {"relearn_time": {"steps": 20, "every": 4}}


def make(name: str) -> Verifier:
    verifier: Verifier = members("verifiers")[name](**QUICK.get(name, {}))
    return verifier


def measured(verifier: Verifier, target: str) -> dict[str, Measure]:
    here = situation_of(verifier)
    subject = here.original if target == "original" else here.retrained[0]
    return {measure.name: measure for measure in verifier.measure(verifier.verify(here.of(subject, target)))}


@pytest.mark.parametrize("name", NAMES)
def test_models_are_left_as_they_were(name: str) -> None:
    here = situation_of(make(name))
    models = [here.original.model, *(control.model for control in here.retrained)]
    before = [copy.deepcopy(model) for model in models]
    modes = [[module.training for module in model.modules()] for model in models]
    make(name).verify(here.of(here.original, "original"))
    assert all(same_weights(model, old) for model, old in zip(models, before, strict=True))
    assert [[module.training for module in model.modules()] for model in models] == modes


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_per_record_and_repeat(name: str) -> None:
    verifier = make(name)
    here = situation_of(verifier)
    one, two = (verifier.verify(here.of(here.retrained[0], "retrained")) for _ in range(2))
    assert one.unit == "record"
    assert set(one.ids.tolist()) <= {*here.case.split.train.ids.tolist(), *here.case.split.test.ids.tolist()}
    for key in one.arrays:
        np.testing.assert_array_equal(one[key], two[key])


@pytest.mark.parametrize("name", NAMES)
def test_measures_have_intervals(name: str) -> None:
    for measure in measured(make(name), "retrained").values():
        assert measure.low <= measure.value + 1e-9
        assert measure.value <= measure.high + 1e-9
        assert measure.n > 0


SLOW = ("memorisation", "reconstruction")
"""Those that need models of text or of images, trained for this alone."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES])
def test_tells_original_from_retrained_and_not_equal_models(name: str) -> None:
    """Of every verifier of the catalog, by the checks that a user's verifier is held to."""
    verifier = make(name)
    failures = {outcome.check: outcome.failure for outcome in contract.run("verifiers", verifier, bench_of(verifier))}
    assert not any(failures.values()), failures
    assert {*failures, *contract.skipped("verifiers", verifier)} == set(contract.checks("verifiers"))


def test_two_retrained_models_are_close() -> None:
    """Zero gap up to the noise of training, which the other verifiers of this pair show too."""
    gap = measured(make("retrain_gap"), "retrained")
    assert gap["retrain_gap.accuracy"].value < 0.03
    far = measured(make("retrain_gap"), "original")
    assert far["retrain_gap.accuracy"].value > 0.2


def test_a_model_is_at_no_distance_from_itself() -> None:
    here = situation()
    scores = make("robust_unlearning").verify(here.of(here.original, "original"))
    assert float(np.abs(scores["distance"]).max()) == 0.0


def test_known_accuracy() -> None:
    """By hand: share of equal predictions."""
    here = situation()
    forget = here.case.forget
    with torch.no_grad():
        right = (here.original.model(forget.batch().inputs["image"]).argmax(1) == forget.targets).float().mean().item()
    assert measured(make("accuracy"), "original")["forget_accuracy"].value == pytest.approx(right)


def test_relearn_steps_by_hand() -> None:
    from palimpsest.types import Scores
    from palimpsest.verify.relearn_time import RelearnTime

    scores = Scores("record", np.array(["a", "b", "c", "d"]), {"relearned_at": np.array([0, 10, 20, 42])})
    steps, share = RelearnTime(steps=40).measure(scores)
    assert steps.value == 18.0
    assert share.value == 0.75
