"""What every attack must pass."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
from torch import nn

from palimpsest import contract
from palimpsest.attack.base import Attack, Guess
from palimpsest.case import Case
from palimpsest.catalog import members
from palimpsest.errors import BeyondView, ContractError
from palimpsest.rng import Rng
from palimpsest.threat import PHASES, ThreatModel, View, same_weights
from palimpsest.types import Measure, Scores
from tests.contract.situations import bench_of, situation, situation_of

NAMES = sorted(members("attacks"))
INVERSION = {"iterations": 150, "restarts": 1, "total_variation": 1e-4, "batching": "loop", "decoys": 30}
QUICK: dict[str, dict[str, Any]] = {
    "adaptive_inversion": {**INVERSION, "defence": "pruning"},
    "extracted_inversion": {**INVERSION, "extraction_epochs": 5, "change_epochs": 10},
    "two_update_inversion": INVERSION,
    "gaussian": {"deviation": 1.0},
    "gradient_canceling": {"iterations": 20, "corruption": 5},
    "gradient_matching": {
        "epsilon": 128 / 255,
        "checked": 1,
        "ensemble": 4,
        "stages": (0.25, 0.5, 1.0),
        "restarts": 1,
        "iterations": 150,
    },
    "label_inference": {"strategy": "random_squares", "probes": 4, "changes": 300, "tries": 2},
    "label_only_inference": {"probes": 6, "draws": 2000},
    "instruction": {"phrase": "So it is"},
    "model_inversion": {"iterations": 30, "decoys": 30},
    "feature_inversion": INVERSION,
    "uma": {"steps": 10, "records": 30, "layout": "contiguous"},
    "uma_generation": {"steps": 10, "records": 30},
    "uma_strong": {"steps": 10, "restarts": 2, "records": 30, "layout": "contiguous"},
    "square": {"queries": 20, "records": 30},
    "transfer": {"steps": 10, "records": 30},
}
"""Settings at which each wins what it can win here."""

FAST: dict[str, dict[str, Any]] = {
    **{f"{kind}_inversion": {"iterations": 10} for kind in ("adaptive", "extracted", "feature", "two_update")},
    "gradient_matching": {"ensemble": 1, "stages": (1.0,), "iterations": 10},
}
"""On top of those, where it need not win."""


def make(name: str, **more: Any) -> Attack:
    attack: Attack = members("attacks")[name](**{**QUICK.get(name, {}), **more})
    return attack


def run(name: str, target: str = "original", selection: str = "class=0") -> tuple[Guess, Scores, dict[Any, Measure]]:
    attack = make(name, **FAST.get(name, {}))
    if attack.prepares:
        case = bench_of(attack).poisoned(attack)
        subject = case.original if target == "original" else case.subject
        guess, scores = attack.run(case.of(subject, target), rng=Rng(0))
        return guess, scores, {measure.key: measure for measure in attack.measure(scores)}
    if attack.compares:
        bench = bench_of(attack)
        (case, *_) = bench.class_deletions if attack.chance is None else bench.deletions
        guess, scores = attack.run(case, rng=Rng(0))
        return guess, scores, {measure.key: measure for measure in attack.measure(scores)}
    here = situation_of(attack, selection)
    subject = here.original if target == "original" else here.retrained[0]
    guess, scores = attack.run(here.of(subject, target), rng=Rng(0))
    return guess, scores, {measure.key: measure for measure in attack.measure(scores)}


Found = tuple[Guess, Scores, dict[Any, Measure]]


@cache
def once(name: str, target: str = "original") -> tuple[Found, bool]:
    """A run, and whether it left the original as it was."""
    model = situation_of(make(name)).original.model
    before, modes = copy.deepcopy(model), _modes(model)
    return run(name, target), same_weights(model, before) and modes == _modes(model)


def _modes(model: nn.Module) -> list[tuple[bool, list[bool]]]:
    return [(module.training, [p.requires_grad for p in module.parameters()]) for module in model.modules()]


@pytest.mark.parametrize("name", NAMES)
def test_models_are_left_as_they_were(name: str) -> None:
    assert once(name)[1]


@pytest.mark.parametrize("name", NAMES)
def test_same_stream_same_scores(name: str) -> None:
    (_, one, _), (_, two, _) = once(name)[0], run(name)
    for key in one.arrays:
        np.testing.assert_array_equal(one[key], two[key])


@pytest.mark.parametrize("name", NAMES)
def test_threat_model_matches_the_code(name: str) -> None:
    """P1 if and only if it prepares, P2 if and only if it requests, P3 if and only if it observes."""
    attack = make(name)
    acts = {"P1": "prepare", "P2": "request", "P3": "observe"}
    assert set(acts) == set(PHASES)
    for phase, method in acts.items():
        overrides = getattr(type(attack), method, None) not in (None, getattr(Attack, method, None))
        assert overrides == (phase in attack.threat.phases), phase


@pytest.mark.parametrize("name", NAMES)
def test_measures_carry_the_name_and_intervals(name: str) -> None:
    attack = make(name)
    (_, _, measures), _ = once(name)
    assert any(measure.name == attack.primary for measure in measures.values())
    for measure in measures.values():
        assert measure.name.startswith(f"{name}.")
        assert measure.low <= measure.value <= measure.high
        assert measure.replicates is not None


@pytest.mark.parametrize("name", NAMES)
def test_counts_what_it_asked(name: str) -> None:
    (guess, scores, _), _ = once(name)
    if "P3" not in make(name).threat.phases:
        assert (guess.gradients, guess.queries) == (0, 0)
    elif make(name).threat.sees == "weights":
        assert guess.gradients > 0
    else:
        assert guess.queries >= len(scores.ids) if name != "square" else guess.queries > 0


SLOW = (
    "adaptive_inversion",
    "extracted_inversion",
    "gradient_matching",
    "label_inference",
    "two_update_inversion",
    "uma_generation",
    "uma_strong",
)
"""Those that take long, or are made of `feature_inversion` or `uma`, whose checks are run each time."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES])
def test_wins_on_its_positive_control_and_not_on_its_negative_ones(name: str) -> None:
    """Of every attack of the catalog, by the checks that a user's attack is held to."""
    attack = make(name)
    wanted = [check for check in contract.checks("attacks") if check not in contract.skipped("attacks", attack)]
    found = {outcome.check: outcome.failure for outcome in contract.run("attacks", attack, bench_of(attack))}
    assert found == dict.fromkeys(wanted, "")


def test_uma_wins_on_its_positive_control_and_not_on_its_negative_one() -> None:
    key = ("uma.forget_accuracy", (("epsilon", 8 / 255),))
    original, retrained = run("uma", "original")[2][key], run("uma", "retrained")[2][key]
    assert original.low > 0.8
    assert retrained.high < 0.3


def test_membership_is_at_chance_on_its_negative_control() -> None:
    """A model retrained without random records cannot tell them from records held out."""
    measures = run("confidence_membership", "retrained", "random=150")[2]
    auc = measures[("confidence_membership.auc", ())]
    assert auc.low < 0.5 < auc.high


class Greedy(Attack):
    """Declares a black box and asks for weights."""

    threat = ThreatModel(("R3",), ("G3",), "K3", ("P3",), "posterior", "after")

    def observe(self, view: View, *, rng: Rng) -> Guess:
        view.after.weights()
        return Guess({})

    def score(self, guess: Guess, case: Case) -> Scores:
        raise AssertionError("not reached")

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        return ()


class Nosy(Greedy):
    """Declares nothing and asks for the forget set."""

    def observe(self, view: View, *, rng: Rng) -> Guess:
        view.know("forget_set")
        return Guess({})


class Backwards(Greedy):
    """Declares the model after unlearning and asks for the one before."""

    def observe(self, view: View, *, rng: Rng) -> Guess:
        return Guess({"answer": view.before.posterior(next(situation().case.forget.batches(4)))})


@pytest.mark.parametrize("attack", [Greedy(), Nosy(), Backwards()])
def test_an_attack_that_reaches_beyond_its_view_fails(attack: Attack) -> None:
    here = situation()
    with pytest.raises(BeyondView, match="expected"):
        attack.run(here.of(here.retrained[0], "retrained"), rng=Rng(0))


def test_view_gives_no_way_to_the_case() -> None:
    here = situation()
    view = View(Greedy.threat, here.of(here.retrained[0], "retrained"))
    public = [name for name in dir(view) if not name.startswith("_")]
    assert sorted(public) == ["after", "before", "know", "made", "queries", "task", "threat"]
    with pytest.raises(AttributeError):
        view.case  # type: ignore[attr-defined]


class Careless(Greedy):
    """Leaves the subject in training mode."""

    def observe(self, view: View, *, rng: Rng) -> Guess:
        situation().original.model.train()
        return Guess({})

    def score(self, guess: Guess, case: Case) -> Scores:
        return Scores("record", np.array(["a"]), {})


def test_an_attack_that_leaves_a_model_changed_fails() -> None:
    here = situation()
    try:
        with pytest.raises(ContractError, match="mode"):
            Careless().run(here.of(here.original, "original"), rng=Rng(0))
    finally:
        here.original.model.eval()


def test_an_attack_without_a_threat_model_is_refused() -> None:
    with pytest.raises(ContractError, match="threat"):

        class Nameless(Attack):
            pass
