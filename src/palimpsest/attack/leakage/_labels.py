"""What attacks share that infer which classes were deleted: who the adversary is, what it answers, and how that is scored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.leakage.base import check_moved
from palimpsest.case import Case
from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.measures.intervals import mean, share
from palimpsest.rng import Rng
from palimpsest.task import as_classification
from palimpsest.threat import View
from palimpsest.types import Array, Measure, Scores


@dataclass(frozen=True)
class LabelGuess(Attack, partial=True):
    """Base of attacks that infer the classes of deleted records from what two black boxes answer to probes of each class.

    A member makes probes of the original in `ready`, and says in `drops` how much less each is answered with its class after
    unlearning. The K classes with the largest mean drop are the answer, K being how many classes were deleted from, which the
    paper's attacker knows; between equal drops the lot decides. Scores are of one request: `right`, the share of the K classes that
    are right; `drop` (1, classes). only_accepted: whether a class without an accepted probe is named after all others.
    """

    compares = True
    makes_ready = True
    chance = None
    revision = 2  # equal drops are decided by lot
    only_accepted: ClassVar[bool] = False

    probes: int = setting(10, "probes of each class (m)", source="inversion paper, 5.2: 10 or 5", least=1)

    @abstractmethod
    def drops(self, view: View, made: Guess) -> Tensor:
        """How much less of its class each probe has after unlearning, (p,)."""

    def observe(self, view: View, *, rng: Rng) -> Guess:
        """drop: mean drop of each class, (classes,). answer: the K classes with the largest, (K,). Raises BadInput where all
        classes were deleted from, which leaves nothing to infer."""
        classes = as_classification(view.task, name_of(self)).classes
        made, count = view.made, view.know("class_count")
        if count >= classes:
            got, do = f"{count} of {classes}, all there are", "forget records of fewer classes at a time"
            raise BadInput("classes deleted from", got=got, expected="fewer than the model knows", do=do)
        fell = self.drops(view, made).double().cpu()
        owner = made.tensors["classes"].cpu()
        drop = torch.zeros(classes, dtype=torch.float64).index_add(0, owner, fell)
        drop = drop / torch.bincount(owner, minlength=classes).clamp_min(1)
        taken = made.tensors["accepted"].double().cpu()
        probed = torch.zeros_like(drop).index_add(0, owner, taken) > 0
        lot = torch.from_numpy(rng.child("ties").numpy().permutation(classes))
        ranked = drop if not self.only_accepted else torch.where(probed, drop, -torch.inf)
        answer = lot[ranked[lot].argsort(descending=True, stable=True)][:count]
        told = {"ready": made.queries, "accepted": float(taken.mean())}
        return Guess({"drop": drop, "answer": answer}, told, queries=view.queries)

    def score(self, guess: Guess, case: Case) -> Scores:
        """One row. truth: the class that was deleted from (the lowest of several); inferred: the answer (its first). Of a placebo
        the truth is drawn at random, as it is of no use to ask for other records of the same classes. Raises BadInput where the two
        models are one."""
        check_moved(case)
        classes = torch.unique(case.split.train.only(case.forgotten).targets).cpu()
        if case.target == "placebo":
            draw = case.rng.child("placebo classes", *sorted(case.forgotten)[:1]).numpy()
            every = as_classification(case.task, name_of(self)).classes
            classes = torch.from_numpy(np.sort(draw.permutation(every)[: len(classes)]))
        answer, drop = guess.tensors["answer"].cpu(), guess.tensors["drop"].cpu()
        hit = torch.isin(answer, classes)
        rest = torch.ones(len(drop), dtype=torch.bool).index_fill(0, classes, False)
        arrays = {
            "right": np.array([float(hit.double().mean())]),
            "truth": classes[:1].numpy(),
            "inferred": answer[:1].numpy(),
            "drop": drop.numpy()[None],
            "margin": np.array([float(drop[classes].min() - drop[rest].max())]),
            "queries": np.array([guess.queries]),
            "ready": np.array([guess.info["ready"]]),
            "accepted": np.array([guess.info["accepted"]]),
        }
        return Scores("request", np.asarray([request_name(case)]), arrays)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """accuracy: share of the deleted classes that were named, 1/classes by chance where one was; at a class: over the requests
        that deleted from it. margin: by how much the drop of the deleted classes exceeds every other. drop, at a class: how much
        less its probes are answered with it after unlearning. probe_queries: asked of the original to make the probes, once for
        all requests; queries: asked after each."""
        name = name_of(self)
        found = [_accuracy(name, scores["right"]), mean(f"{name}.margin", scores["margin"])]
        found += [
            _accuracy(name, scores["right"][scores["truth"] == c], at={"class": float(c)})
            for c in np.unique(scores["truth"])
        ]
        found += [mean(f"{name}.drop", column, at={"class": float(c)}) for c, column in enumerate(scores["drop"].T)]
        found += [mean(f"{name}.probe_queries", scores["ready"]), mean(f"{name}.queries", scores["queries"])]
        return (*found, mean(f"{name}.accepted_rate", scores["accepted"]))


def request_name(case: Case) -> str:
    """A name for all that was requested: its first record and how many more there are."""
    ids = sorted(case.forgotten)
    return f"{ids[0]} and {len(ids) - 1} more"


def _accuracy(name: str, right: Array, at: Mapping[str, float] | None = None) -> Measure:
    """With the exact interval of a share where each request is right or wrong."""
    whole = bool(np.isin(right, (0.0, 1.0)).all())
    return (share if whole else mean)(f"{name}.accuracy", right, at=at)
