"""Settings for every method, found under one budget: the nearest to retraining, on seeds and records that are not reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from palimpsest.audit.crew import Bench, Crew
from palimpsest.audit.plan import Plan
from palimpsest.audit.runnable import runnable
from palimpsest.audit.stage import homes, labels
from palimpsest.disk import disk_errors, write_atomically
from palimpsest.errors import BadInput
from palimpsest.options import wanted
from palimpsest.presets import Choices, Told
from palimpsest.rng import determinism
from palimpsest.store import Store
from palimpsest.task import check_task
from palimpsest.tuning.arena import FIRST_SEED
from palimpsest.tuning.search import Place, Search, Tried, Tuned, attempt, fit, merged, within
from palimpsest.tuning.space import Space
from palimpsest.types import Split
from palimpsest.verify.accuracy import Accuracy
from palimpsest.workers import Workers, at_work

__all__ = ["Tried", "Tuned", "tune", "write"]


def tune(
    plan: Plan,
    store: Store,
    *,
    trials: int = 20,
    seeds: int = 2,
    share: float = 0.2,
    split: Split | None = None,
    say: Callable[[str], None] = lambda text: None,
    workers: Workers = Workers(),  # noqa: B008 - frozen
) -> list[Tuned]:
    """Tries so many settings of every method of the plan that has something to search.

    share: the most that one run of a method may cost, as a share of the gradients of training. Every method gets the same
    number of trials, the same seeds and the same share. The objective is the sum of the absolute gaps to the mean of the retrained
    controls of retain, forget and validation accuracy and of the share of forgotten records that the membership test calls members
    (Optuna's TPE sampler, asked for a few settings at a time). What was tried is in the store: a run that was stopped goes on where
    it was. workers: processes that trials are run by; what is found is the same with any number of them.

    It finds the best of what was tried, for this data set, model and kind of request; another budget may find another order of
    methods. Raises BadInput where nothing can be searched, or no records are left to try on.
    """
    for name, value, least in (("trials", trials, 1), ("seeds", seeds, 1)):
        if value < least:
            raise BadInput(name, got=value, expected=f"a whole number of at least {least}")
    if not 0 < share <= 1:
        raise BadInput("share", got=share, expected="a number above 0 and at most 1")
    check_task(Accuracy(), plan.model.solves)
    spaces = {label: Space.of(unlearner, plan.recipe, share) for label, unlearner in labels(plan).items()}
    if not any(spaces.values()):
        raise BadInput("tune", got=f"only {', '.join(spaces)}", expected="a method that has a range to search")
    plan = replace(plan, threads=workers.threads(plan.threads))
    with determinism(plan.threads), at_work(workers):
        bench = Bench.of(plan, store, split)
        plan = runnable(plan, bench.split, bench.shop.task)
        for label, reason in plan.skipped.items():
            say(f"{label}: skipped, {reason}")
        for label in labels(plan):
            if not spaces[label]:
                say(f"{label}: nothing to search, it stays as it is")
        crew = Crew(plan, bench, workers)
        searches = [
            Search(label, home.name, spaces[label], plan)
            for home in homes(plan)
            for label in home.methods
            if spaces[label]
        ]
        if not searches:
            raise BadInput("tune", got="no method that can be run here", expected="one that has a range to search")
        ways = dict.fromkeys(search.home for search in searches)
        places = [Place(way, FIRST_SEED + index, share) for way in ways for index in range(seeds)]
        crew.spread(
            fit, [(place, number) for place in places for number in range(1 + plan.controls)], "originals and controls"
        )
        say(f"{bench.split.name}: {seeds} tuning seeds, original and {plan.controls} retrained controls each, ready")
        first = [place for place in places if place.seed == FIRST_SEED]
        asked = [
            (search.label, search.start(), place) for search in searches for place in first if place.home == search.home
        ]
        for search, fewer in zip(searches, crew.spread(within, asked, "costs"), strict=True):
            search.limit(fewer)
        while any(len(search.tried) < trials for search in searches):
            turns = [(search, search.ask(trials)) for search in searches]
            pieces = [
                (search.label, settings, place)
                for search, batch in turns
                for settings in batch
                for place in places
                if place.home == search.home
            ]
            results = iter(crew.spread(attempt, pieces, "trials"))
            for search, batch in turns:
                search.tell([merged([next(results) for _ in range(seeds)]) for _ in batch])
            say(f"{min(len(search.tried) for search in searches)} of {trials} trials of {len(searches)} methods")
    for search in searches:
        best = search.tuned.best
        told = f"gap {best.total:.3f}, was {search.tried[0].total:.3f}" if best else "all failed"
        say(f"{search.label}: {told}")
    return [search.tuned for search in searches]


FULL = "exact_unlearning_k"
"""Its paper's full training schedule is no setting that the budget allows: it is reported as a row of its own."""


def write(out: Path, chosen: Choices, plan: Plan, found: Sequence[Tuned], *, seeds: int, share: float) -> None:
    """A settings file with what was chosen and the best settings of each method; EU-k comes once more with its full schedule."""
    settings = {name: dict(fields) for name, fields in chosen.settings.items()}
    names = list(wanted(chosen))
    for tuned in found:
        if tuned.best:
            settings[tuned.label] = {**settings.get(tuned.label, {}), **tuned.best.settings}
    if FULL in {tuned.label for tuned in found} and f"{FULL}#2" not in labels(plan):
        names.append(FULL)
        settings[f"{FULL}#2"] = {**chosen.settings.get(FULL, {}), "lr": None, "epochs": None}
    budget: dict[str, Any] = {"seeds": seeds, "share": share}
    if any(selection.startswith("random") for selection in plan.forget):
        budget["apart"] = len(plan.seeds)  # another seed forgets other records, and tuning may have met those
    told = {tuned.label: Told(**tuned.told(), **budget) for tuned in found}
    about = f"settings found by `palimpsest tune` for {', '.join(plan.forget)}"
    found_too = {"about": about, "unlearn": tuple(names), "settings": settings, "tuned": told, "scale": ""}
    content = chosen.model_copy(update=found_too)
    text = json.dumps(content.model_dump(exclude_defaults=True), indent=1)
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, (text + "\n").encode())
