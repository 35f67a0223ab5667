"""Where methods are tried: other seeds and other forget sets than those that are reported, and validation records for test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.audit.plan import Plan
from palimpsest.audit.requests import chosen_requests
from palimpsest.audit.stage import Home, Stage
from palimpsest.audit.workshop import Made, Workshop
from palimpsest.catalog import name_of
from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.store import digest
from palimpsest.task import Task
from palimpsest.types import Examples, ForgetRequest, Ids, Split
from palimpsest.unlearn.base import Unlearner
from palimpsest.verify.accuracy import Accuracy

FIRST_SEED = 1000
"""Audits count their seeds from 0, tuning from here."""
PARTS = ("retain_accuracy", "forget_accuracy", "test_accuracy", "confidence_membership.mia_member_rate")


def for_tuning(split: Split) -> Split:
    """The split with its validation records in the test records' place, so that these are never looked at."""
    return replace(split, test=split.validation, fingerprint=f"{split.fingerprint}/tuning")


def elsewhere(plan: Plan, split: Split, task: Task, seed: int) -> ForgetRequest:
    """A request of the same kind and size as the plan's first, of records that none of the plan's seeds forgets.

    Another class for a class, other random records for all else. Raises BadInput where too few are left.
    """
    reported: set[str] = set()
    for other in plan.seeds:
        for request in chosen_requests(plan, split, task, other):
            reported.update(request.ids.tolist())
    free = split.train.without(reported)
    first = chosen_requests(plan, split, task, plan.seeds[0])[0]
    draw = Rng(seed).child("tuning").numpy()
    if first.selection.startswith("class="):
        chosen = _other_classes(first, split.train, free, draw)
    else:
        chosen = free.ids if len(free) < len(first) else draw.choice(free.ids, len(first), replace=False)
        if len(free) < len(first):
            got = f"{len(free)} records that no reported seed forgets"
            raise BadInput("tuning", got=got, expected=f"at least {len(first)}", do="forget fewer, or use fewer seeds")
    return ForgetRequest(np.sort(chosen), f"tuning for {first.selection}")


def _other_classes(first: ForgetRequest, train: Examples, free: Examples, draw: np.random.Generator) -> Ids:
    """Records of as many classes as were asked for, none of them with a reported record: the same share of them."""
    asked = np.unique(train.only(first.ids.tolist()).targets.cpu().numpy())
    count = len(asked)
    targets, whole = free.targets.cpu().numpy(), train.targets.cpu().numpy()
    untouched = [c for c in np.unique(targets) if (targets == c).sum() == (whole == c).sum()]
    if len(untouched) < count + 2:
        got, do = f"{len(untouched)} classes that no reported seed forgets from", "tune on random records"
        raise BadInput("tuning", got=got, expected=f"at least {count + 2}", do=do)
    others: Ids = free.ids[np.isin(targets, draw.choice(untouched, count, replace=False))]
    share = len(first) / np.isin(whole, asked).sum()
    return others if share == 1 else draw.choice(others, round(share * len(others)), replace=False)


def fits(plan: Plan, split: Split, request: ForgetRequest, seed: int) -> list[tuple[Examples, Rng]]:
    """What is trained on what, with which stream: the original, then the retrained controls."""
    rng, retain = Rng(seed), split.train.without(request.ids.tolist())
    controls = [(retain, rng.child("control", 0, replica)) for replica in range(plan.controls)]
    return [(split.train, rng.child("original")), *controls]


@dataclass(frozen=True)
class Arena:
    """One tuning seed: original and retrained controls, and what the controls measure."""

    stage: Stage
    shop: Workshop
    retain: Examples
    forget: Examples
    wanted: dict[str, float]

    @staticmethod
    def build(plan: Plan, home: Home, split: Split, shop: Workshop, seed: int) -> Arena:
        request = elsewhere(plan, split, shop.task, seed)
        original, *controls = (
            shop.fit(home.learner, home.recipe, plan.model, examples, rng)
            for examples, rng in fits(plan, split, request, seed)
        )
        stage = Stage(seed, for_tuning(split), (request,), original, tuple(controls), {}, home)
        retain, forget = split.train.without(request.ids.tolist()), split.train.only(request.ids.tolist())
        empty = Arena(stage, shop, retain, forget, {})
        found = [empty.measured(control) for control in controls]
        return replace(empty, wanted={name: float(np.mean([one[name] for one in found])) for name in found[0]})

    def unlearned(self, unlearner: Unlearner) -> Made:
        stream = Rng(self.stage.seed).child("unlearn", name_of(unlearner), 0)
        return self.shop.unlearn(unlearner, self.stage.original, self.retain, self.forget, stream)

    def measured(self, made: Made) -> dict[str, float]:
        """The three accuracies, and the share of the forgotten records that the membership test calls members."""
        request = self.stage.requests[0]
        about = {
            "original": self.stage.original.key,
            "requests": [digest(sorted(request.ids.tolist()))],
            "seed": self.stage.seed,
            "target": "tuning",
            "controls": [],
        }
        holds = [*made.holds.tolist(), *self.stage.original.holds.tolist()]

        def case():  # type: ignore[no-untyped-def]
            return self.stage.case(made, "unlearned")

        accuracy, membership = Accuracy(), ConfidenceMembership()
        rows = [
            *accuracy.measure(self.shop.verify(accuracy, made, case, about, holds).scores),
            *membership.measure(self.shop.attack(membership, made, case, about, holds).scores),
        ]
        values = {row.name: row.value for row in rows}
        return {name: values[name] for name in PARTS}

    def gap(self, made: Made) -> dict[str, float]:
        """How far each measure is from the retrained controls' mean."""
        return {name: abs(value - self.wanted[name]) for name, value in self.measured(made).items()}
