"""The search of one method: what Optuna asks for, what came of it, and the pieces of work that workers do for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from palimpsest.audit.crew import Bench
from palimpsest.audit.failures import FAILURES
from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import home_of, labels
from palimpsest.errors import StoreError
from palimpsest.tuning import arena
from palimpsest.tuning.arena import Arena
from palimpsest.tuning.space import PASSES, Space
from palimpsest.types import Cost

BATCH = 5
"""Trials that are asked for before any of them is told of, with any number of workers."""

PLANNED = 0.95
"""Share of the budget that samples are planned for: on another tuning seed the forget set may be larger."""


@dataclass(frozen=True)
class Tried:
    """One trial: what was set, its gap to retraining part by part (mean over tuning seeds), or why there is none."""

    settings: dict[str, Any]
    gap: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def total(self) -> float:
        return sum(self.gap.values()) if self.gap else float("inf")


@dataclass(frozen=True)
class Tuned:
    """All trials of one method, in order; the first tries its own settings, as far as the budget allows."""

    label: str
    trials: tuple[Tried, ...]

    @property
    def best(self) -> Tried | None:
        """The trial nearest to retraining; None where all failed."""
        found = min(self.trials, key=lambda tried: tried.total)
        return found if found.gap else None

    def told(self) -> dict[str, Any]:
        """For a settings file and the report."""
        best, first = self.best, self.trials[0]
        return {
            "trials": len(self.trials),
            "failed": sum(not tried.gap for tried in self.trials),
            "default": {"settings": first.settings, "gap": first.gap, "reason": first.reason},
            "tuned": {"settings": best.settings, "gap": best.gap} if best else {},
        }


class Search:
    """The trials of one method so far. fixed: settings that the budget asks for and that are not searched."""

    def __init__(self, label: str, home: str, space: Space, plan: Plan) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.label, self.home, self.space, self.unlearner = label, home, space, labels(plan)[label]
        self.study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        self.fixed: dict[str, Any] = {}
        self.tried: list[Tried] = []
        self.open: list[Any] = []

    def start(self) -> dict[str, Any]:
        """The method's own settings, with no more passes than the budget allows."""
        return self.space.start(self.unlearner)

    def limit(self, fewer: dict[str, Any]) -> None:
        """What `within` found: passes bound the search, samples are fixed."""
        self.space = dataclasses.replace(self.space, epochs=fewer.pop(self.space.passes, self.space.epochs))
        self.fixed = fewer

    def ask(self, trials: int) -> list[dict[str, Any]]:
        """The next few settings of at most so many trials in all; the very first are the method's own, whatever is searched."""
        count = min(BATCH, trials - len(self.tried))
        own = [] if self.tried else [{**self.fixed, **self.start()}]
        self.open = [self.study.ask() for _ in range(count - len(own))]
        return [*own, *({**self.fixed, **self.space.suggest(trial)} for trial in self.open)]

    def tell(self, found: Sequence[Tried]) -> None:
        """What came of the settings that were asked for last."""
        import optuna

        self.tried += found
        for trial, tried in zip(self.open, found[len(found) - len(self.open) :], strict=True):
            if tried.gap:
                self.study.tell(trial, tried.total)
            else:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    @property
    def tuned(self) -> Tuned:
        return Tuned(self.label, tuple(self.tried))


@dataclass(frozen=True)
class Place:
    """One tuning seed of one home. share: the most that a run may cost there, as a share of training."""

    home: str
    seed: int
    share: float

    def arena(self, plan: Plan, bench: Bench) -> Arena:
        home = home_of(plan, self.home)
        return bench.once(self, lambda: Arena.build(plan, home, bench.split, bench.shop, self.seed), most=4)

    def allowed(self, training: Cost) -> int:
        """The most gradients that a run may cost; of the share as it is written, so that 0.29 of 100 are 29."""
        return int(Fraction(str(self.share)) * training.samples)


Piece = tuple[str, dict[str, Any], Place]
"""Method, settings, where."""


def fit(plan: Plan, bench: Bench, piece: tuple[Place, int]) -> None:
    """Trains one original or control, by its place in `fits`."""
    place, number = piece
    home = home_of(plan, place.home)
    request = arena.elsewhere(plan, bench.split, bench.shop.task, place.seed)
    examples, rng = arena.fits(plan, bench.split, request, place.seed)[number]
    bench.shop.fit(home.learner, home.recipe, plan.model, examples, rng)


def within(plan: Plan, bench: Bench, piece: Piece) -> dict[str, Any]:
    """As few passes, or `samples` for a method's curvature or importances, as the budget asks for; empty where neither is a
    question. A method whose pass goes over more than the retain set has fewer of them than another."""
    label, settings, place = piece
    unlearner, there = labels(plan)[label], place.arena(plan, bench)
    own, allowed = vars(unlearner), place.allowed(there.stage.original.cost)

    def spent(name: str, count: int) -> int:
        return there.unlearned(dataclasses.replace(unlearner, **{**settings, name: count})).cost.samples

    try:
        if "samples" in own:
            whole = min(own["samples"] or len(there.retain), len(there.retain))
            samples = _most(lambda count: spent("samples", count), max(1, whole // 64), whole, int(PLANNED * allowed))
            return {} if samples == own["samples"] else {"samples": samples}
        name = next((name for name in PASSES if settings.get(name, 0) > 1), "")
        if not name:
            return {}
        passes = _most(lambda count: spent(name, count), settings[name], settings[name], allowed)
    except FAILURES:  # the first trial will say so
        return {}
    return {} if passes == settings[name] else {name: passes}


def _most(spent: Callable[[int], int], first: int, whole: int, allowed: int) -> int:
    """About as many of at most `whole` as cost what is allowed, and no more, sought from `first` on in five runs at
    most. 1 where none of these was allowed."""
    found, count = 0, first
    for _ in range(5):
        cost = spent(count)
        if cost > allowed:
            whole = count - 1
        else:
            found = count
        count = min(whole, int(count * allowed / max(1, cost)))
        if count < max(1, 1.05 * found):
            break
    return max(1, found)


def attempt(plan: Plan, bench: Bench, piece: Piece) -> Tried:
    """One setting on one tuning seed. A failure is kept with its reason, never as a number."""
    label, settings, place = piece
    try:
        there = place.arena(plan, bench)
        made = there.unlearned(dataclasses.replace(labels(plan)[label], **settings))
        allowed = place.allowed(there.stage.original.cost)
        if made.cost.samples > allowed:
            return Tried(settings, reason=f"cost {made.cost.samples} gradients, allowed {allowed}")
        return Tried(settings, there.gap(made))
    except StoreError:  # a full disk is no fault of the method
        raise
    except FAILURES as error:
        return Tried(settings, reason=f"{type(error).__name__}: {error}")


def merged(found: Sequence[Tried]) -> Tried:
    """One setting on all tuning seeds: the mean, or why one of them has no number."""
    bad = next((tried for tried in found if not tried.gap), None)
    if bad is not None:
        return bad
    return Tried(
        found[0].settings, {name: float(np.mean([tried.gap[name] for tried in found])) for name in found[0].gap}
    )
