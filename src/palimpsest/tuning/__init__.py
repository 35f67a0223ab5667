"""Settings for every method, found under one budget: the nearest to retraining, on seeds and records that are not reported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.audit.plan import Plan
from palimpsest.audit.runnable import runnable
from palimpsest.audit.stage import FAILURES, homes, labels
from palimpsest.audit.workshop import Workshop
from palimpsest.disk import disk_errors, write_atomically
from palimpsest.errors import BadInput, StoreError
from palimpsest.options import UNLEARN
from palimpsest.presets import Choices
from palimpsest.rng import determinism
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.tuning.arena import Arena, arenas
from palimpsest.tuning.space import Space
from palimpsest.types import Split
from palimpsest.unlearn.base import Unlearner


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


def tune(
    plan: Plan,
    store: Store,
    *,
    trials: int = 20,
    seeds: int = 2,
    share: float = 0.2,
    split: Split | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Tuned]:
    """Tries so many settings of every method of the plan that has something to search.

    share: the most that one run of a method may cost, as a share of the gradients of training. Every method gets the same
    number of trials, the same seeds and the same share. The objective is the sum of the absolute gaps to the mean of the retrained
    controls of retain, forget and validation accuracy and of the share of forgotten records that the membership test calls members
    (Optuna's TPE sampler). What was tried is
    in the store: a run that was stopped goes on where it was.

    It finds the best of what was tried, for this data set, model and kind of request; another budget may find another order of
    methods. Raises BadInput where nothing can be searched, or no records are left to try on.
    """
    for name, value, least in (("trials", trials, 1), ("seeds", seeds, 1)):
        if value < least:
            raise BadInput(name, got=value, expected=f"a whole number of at least {least}")
    if not 0 < share <= 1:
        raise BadInput("share", got=share, expected="a number above 0 and at most 1")
    spaces = {label: Space.of(unlearner, plan.recipe, share) for label, unlearner in labels(plan).items()}
    if not any(spaces.values()):
        raise BadInput("tune", got=f"only {', '.join(spaces)}", expected="a method that has a range to search")
    with determinism(plan.threads):
        split = (split or plan.data.load()).to(plan.device)
        shop = Workshop(store, Classification.of(split), split.fingerprint, plan.device, split.validation)
        plan = runnable(plan, split, shop.task)
        for label, reason in plan.skipped.items():
            say(f"{label}: skipped, {reason}")
        found = []
        for home in homes(plan):
            searched = {label: unlearner for label, unlearner in home.methods.items() if spaces[label]}
            places = arenas(plan, home, split, shop, seeds) if searched else ()
            for label, unlearner in searched.items():
                tuned = _searched(label, unlearner, spaces[label], places, trials, share)
                told = f"gap {tuned.best.total:.3f}, was {tuned.trials[0].total:.3f}" if tuned.best else "all failed"
                say(f"{label}: {trials} trials, {told}")
                found.append(tuned)
    return found


FULL = "exact_unlearning_k"
"""Its paper's full training schedule is no setting that the budget allows: it is reported as a row of its own."""


def write(out: Path, chosen: Choices, plan: Plan, found: Sequence[Tuned], *, seeds: int, share: float) -> None:
    """A settings file with what was chosen and the best settings of each method; EU-k comes once more with its full schedule."""
    settings = {name: dict(fields) for name, fields in chosen.settings.items()}
    names = list(UNLEARN if chosen.unlearn is None else chosen.unlearn)
    for tuned in found:
        if tuned.best:
            settings[tuned.label] = {**settings.get(tuned.label, {}), **tuned.best.settings}
    if FULL in labels(plan) and f"{FULL}#2" not in labels(plan):
        names.append(FULL)
        settings[f"{FULL}#2"] = {**chosen.settings.get(FULL, {}), "lr": None, "epochs": None}
    budget: dict[str, Any] = {"seeds": seeds, "share": share}
    if any(selection.startswith("random") for selection in plan.forget):
        budget["apart"] = len(plan.seeds)  # another seed forgets other records, and tuning may have met those
    told = {tuned.label: {**tuned.told(), **budget} for tuned in found}
    about = f"settings found by `palimpsest tune` for {', '.join(plan.forget)}"
    found_too = {"about": about, "unlearn": tuple(names), "settings": settings, "tuned": told, "scale": ""}
    content = chosen.model_copy(update=found_too)
    text = json.dumps(content.model_dump(exclude_defaults=True), indent=1)
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, (text + "\n").encode())


def _searched(
    label: str, unlearner: Unlearner, space: Space, places: Sequence[Arena], trials: int, share: float
) -> Tuned:
    import optuna

    unlearner, fixed = _within(unlearner, space, places[0], share)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.enqueue_trial(space.start(unlearner))
    done: list[Tried] = []
    for _ in range(trials):
        trial = study.ask()
        tried = _tried(unlearner, {**fixed, **space.suggest(trial)}, places, share)
        done.append(tried)
        if tried.gap:
            study.tell(trial, tried.total)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return Tuned(label, tuple(done))


def _within(unlearner: Unlearner, space: Space, place: Arena, share: float) -> tuple[Unlearner, dict[str, Any]]:
    """The method with as few `samples` for its curvature or importances as the budget asks for, where it has that field."""
    names = {entry.name for entry in dataclasses.fields(unlearner)}
    first = dataclasses.replace(unlearner, **space.start(unlearner))
    if "samples" not in names:
        return unlearner, {}
    try:
        spent = place.unlearned(first).cost.samples
    except FAILURES:  # the first trial will say so
        return unlearner, {}
    allowed, samples = share * place.stage.original.cost.samples, vars(unlearner)["samples"] or len(place.retain)
    if spent <= allowed:
        return unlearner, {}
    fewer = {"samples": max(1, int(samples * allowed / spent))}
    return dataclasses.replace(unlearner, **fewer), fewer


def _tried(unlearner: Unlearner, settings: dict[str, Any], places: Sequence[Arena], share: float) -> Tried:
    """One setting on all tuning seeds. A failure is kept with its reason, never as a number."""
    gaps = []
    for place in places:
        try:
            made = place.unlearned(dataclasses.replace(unlearner, **settings))
            allowed = share * place.stage.original.cost.samples
            if made.cost.samples > 1.05 * allowed:
                return Tried(settings, reason=f"cost {made.cost.samples} gradients, allowed {allowed:.0f}")
            gaps.append(place.gap(made))
        except StoreError:  # a full disk is no fault of the method
            raise
        except FAILURES as error:
            return Tried(settings, reason=f"{type(error).__name__}: {error}")
    return Tried(settings, {name: float(np.mean([gap[name] for gap in gaps])) for name in gaps[0]})
