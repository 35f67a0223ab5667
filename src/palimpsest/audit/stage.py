"""One seed after one request: the models that stand against each other, made in the order of the flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor, nn

from palimpsest.audit.failures import FAILURES
from palimpsest.audit.plan import Plan
from palimpsest.audit.prepared import Prepared, prepared
from palimpsest.audit.searched import Values, best, deciding, variants
from palimpsest.audit.workshop import Made, Workshop
from palimpsest.case import Case, classes_gone
from palimpsest.catalog import identity, name_of, settings_of
from palimpsest.defend.base import Guarded, ModelRelease, OutputRelease
from palimpsest.errors import BadInput, StoreError
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.recipe import Recipe
from palimpsest.rng import Rng
from palimpsest.store import digest
from palimpsest.task import Task
from palimpsest.threat import Submission
from palimpsest.types import Examples, ForgetRequest, Split
from palimpsest.unlearn.base import Unlearner


@dataclass(frozen=True)
class Home:
    """A way of training with the methods, by label, that unlearn its models: an original and retrained controls of their own.

    name: of the learner, and of what differs in its recipe; empty where both are the audit's own. release: what stands between its
    models and the world; unknown: whether an attacker does not know of it.
    """

    name: str
    learner: Learner
    recipe: Recipe
    methods: Mapping[str, Unlearner] = field(default_factory=dict)
    release: ModelRelease | None = None
    unknown: bool = False

    @property
    def told(self) -> str:
        """As cells name it."""
        return self.name or name_of(self.learner)


@dataclass(frozen=True)
class Stage:
    """The original, its retrained controls and the unlearned models (or why there is none) after `requests`, all of one learner.

    turn: which of the plan's requests the last of them is. index: under which request its cells stand: where requests are
    separate, all stand under the first.
    untrained: the model that the original's training began with, where an attack is to be read beside it.
    clean: the original as it is without what an adversary handed in before training, which is the submission.
    served: what takes the original's seat where a release stands before it. behind: key of a released model → the model that an
    attacker takes it for who does not know of the release.
    """

    seed: int
    split: Split
    requests: tuple[ForgetRequest, ...]
    original: Made
    controls: tuple[Made, ...]
    unlearned: Mapping[str, Made | Exception]
    home: Home
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    served: Made | None = None
    untrained: Made | None = None
    clean: Made | None = None
    submission: Submission | None = None
    behind: Mapping[str, Made] = field(default_factory=dict)
    turn: int = 0
    index: int = 0
    answers: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = field(default_factory=WeakKeyDictionary, repr=False)

    def case(self, subject: Made, target: str, others: tuple[Made, ...] | None = None) -> Case:
        """What the evaluator knows, with this subject; controls other than the subject."""
        controls = self.controls if others is None else others
        seen = self.behind.get(subject.key)
        return Case(
            self.split,
            self.requests,
            self.original.trained,
            subject.trained,
            target,
            tuple(control.trained for control in controls),
            self.seed,
            answers=self.answers,
            seen=seen.trained if seen else None,
            submission=self.submission,
            seen_before=self.served.trained if self.served and isinstance(self.home.release, OutputRelease) else None,
        )

    def unload(self) -> None:
        """Lets go of the weights of controls and unlearned models, which are loaded again where they are asked for."""
        for made in (*self.controls, *self.unlearned.values()):
            if isinstance(made, Made):
                made.unload()

    def defence(self, label: str) -> str | None:
        """The defence that this method's model stands behind."""
        if self.home.release is not None:
            return name_of(self.home.release)
        unlearner = self.home.methods.get(label)
        return name_of(unlearner.guard) if isinstance(unlearner, Guarded) else None

    @cached_property
    def forgotten(self) -> set[str]:
        """Ids of all records forgotten so far."""
        return {str(name) for request in self.requests for name in request.ids}

    @cached_property
    def forgotten_classes(self) -> tuple[int, ...]:
        """Classes that are gone whole; with none, forgetting was by record."""
        return classes_gone(self.split, self.forgotten)

    @cached_property
    def whole_classes_only(self) -> bool:
        """Whether every forgotten record is of a class that is gone whole."""
        gone = self.split.train.only(sorted(self.forgotten)).targets.cpu().numpy()
        return bool(np.isin(gone, self.forgotten_classes).all())


def labels(plan: Plan) -> dict[str, Unlearner]:
    """Label → unlearner; a method that appears twice gets a number, and a guarded one stands beside it as `method+guard`."""
    found = _named(plan)
    for guard in plan.guards:
        for label, unlearner in _named(plan).items():
            with suppress(BadInput):
                guard.check(unlearner)  # raises for a method that it cannot guard, which then stands alone
                found[f"{label}+{name_of(guard)}"] = Guarded(unlearner, guard)
    return found


def _named(plan: Plan) -> dict[str, Unlearner]:
    found: dict[str, Unlearner] = {}
    for unlearner in plan.unlearners:
        name = name_of(unlearner)
        label, count = name, 1
        while label in found:
            count += 1
            label = f"{name}#{count}"
        found[label] = unlearner
    return found


def homes(plan: Plan) -> list[Home]:
    """The audit's own way of training with the methods that take it, then each further one with the methods that need it."""
    found: dict[str, Home] = {}
    for label, unlearner in labels(plan).items():
        if label not in plan.skipped:
            home = _home(plan, unlearner)
            methods = {**found.get(home.name, home).methods, label: unlearner}
            found[home.name] = replace(home, methods=methods)
    return [found[name] for name in sorted(found, key=lambda name: (name != "", name))]


def home_of(plan: Plan, name: str) -> Home:
    return next(home for home in homes(plan) if home.name == name)


def _home(plan: Plan, unlearner: Unlearner) -> Home:
    learner = plan.learners.get(unlearner.needs, plan.learner)
    other = {key: value for key, value in unlearner.needs_recipe.items() if getattr(plan.recipe, key) != value}
    if learner is plan.learner and not other:
        return Home("", learner, plan.recipe)
    name = ", ".join([name_of(learner), *(f"{key} {value}" for key, value in other.items())])
    return Home(name, learner, replace(plan.recipe, **other))


def fits(plan: Plan, ready: Prepared, task: Task, seed: int) -> list[tuple[Examples, Rng]]:
    """What is trained on what, with which stream: the original, then the retrained controls of each request in order; where
    something was handed in, last the model that never saw it."""
    rng, remaining = Rng(seed), ready.split.train
    found = [(remaining, rng.child("original"))]
    for index, request in enumerate(ready.requests):
        remaining = task.remove(ready.split.train if plan.separate else remaining, request.ids.tolist())
        found += [(remaining, rng.child("control", index, replica)) for replica in range(plan.controls)]
    return found if ready.submission is None else [*found, (ready.before.train, rng.child("original"))]


def _searched(plan: Plan, label: str, unlearner: Unlearner) -> Values:
    """What is to be tried of a method, guarded or not."""
    bare = label.removesuffix(f"+{name_of(unlearner.guard)}") if isinstance(unlearner, Guarded) else label
    return plan.search.get(bare, {})


def untrained(plan: Plan, shop: Workshop, seed: int) -> Made | None:
    """A model that has learnt nothing, of the original's stream; None where no attack asks for it."""
    if not any(attack.untrained for attack in plan.attacks):
        return None
    stream, nobody = Rng(seed).child("original"), np.asarray([], dtype=np.str_)

    def build() -> Trained:
        model = plan.model.untrained(shop.task, stream).to(shop.device).eval()
        return Trained(model, shop.task, nobody, factory=plan.model)

    told = {"model": identity(plan.model), "task": shop.task.identity(), "seed": seed}
    return Made(digest({"untrained": told}), build, nobody, nobody)


def stages(plan: Plan, home: Home, split: Split, shop: Workshop, seed: int) -> Iterator[Stage]:
    """One stage per request, in order: each method of the home unlearns from where its last request left it, or from the original
    where requests are separate."""
    ready = prepared(plan, home.learner, home.recipe, split, shop, seed)
    split, shop = ready.split, ready.shop
    every = fits(plan, ready, shop.task, seed)
    trained = (shop.fit(home.learner, home.recipe, plan.model, examples, rng) for examples, rng in every)
    original, rng, remaining = next(trained), Rng(seed), split.train
    clean = None if ready.submission is None else shop.fit(home.learner, home.recipe, plan.model, *every[-1])
    current: dict[str, Made | Exception] = dict.fromkeys(home.methods, original)
    settings = {label: settings_of(unlearner) for label, unlearner in home.methods.items()}
    requests: list[ForgetRequest] = []
    for index, request in enumerate(ready.requests):
        if plan.separate:
            current, remaining, requests = dict.fromkeys(home.methods, original), split.train, []
        requests.append(request)
        forget = remaining.only(request.ids.tolist())
        remaining = shop.task.remove(remaining, request.ids.tolist())
        controls = tuple(islice(trained, plan.controls))
        decide = deciding(split, {name for request in requests for name in request.ids.tolist()})
        for label, unlearner in home.methods.items():
            before = current[label]
            if isinstance(before, Exception):
                continue
            stream, tried = rng.child("unlearn", label, index), variants(unlearner, _searched(plan, label, unlearner))
            try:
                current[label], chosen = best(shop, tried, before, remaining, forget, decide, stream)
                settings[label] = settings_of(chosen)
            except StoreError:  # a full disk is no fault of the method
                raise
            except FAILURES as error:
                current[label] = error  # the method's cells are recorded as failed, with this reason
        yield Stage(
            seed,
            split,
            tuple(requests),
            original,
            controls,
            dict(current),
            home,
            dict(settings),
            untrained=untrained(plan, shop, seed),
            clean=clean,
            submission=ready.submission,
            turn=index,
            index=0 if plan.separate else index,
        )
