"""What the checks work on: digits, and small models of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from palimpsest.case import Case
from palimpsest.catalog import make
from palimpsest.data.digits import Digits
from palimpsest.errors import ContractError
from palimpsest.forget.selection import select
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples, Split


def factory(learner: Learner) -> Model:
    """A small model that this learner can train."""
    if not learner.for_model:
        return ConvNet(width=3)
    made: Model = make("models", learner.for_model)
    return made


@dataclass(frozen=True)
class Bench:
    """Digits, a small model trained on them, and the same with a class or some records left out; made when first asked for.

    learner, model: what trains the model to be unlearned, and which that is; none: one that the learner can train.
    """

    records: int = 400
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=10, batch_size=32))
    learner: Learner = field(default_factory=Plain)
    model: Model | None = None

    @cached_property
    def split(self) -> Split:
        return Digits(limit=self.records).load()

    @cached_property
    def task(self) -> Classification:
        return Classification.of(self.split)

    def fit(self, examples: Examples, *stream: str | int) -> Trained:
        model = self.model or factory(self.learner)
        return self.learner.fit(self.task, examples, self.recipe, model, rng=Rng(0).child(*stream))

    @cached_property
    def original(self) -> Trained:
        return self.fit(self.split.train, "original")

    def parted(self, selection: str) -> tuple[Examples, Examples]:
        """Retain and forget records of a selection."""
        request = select(selection, self.split.train, self.split.classes, rng=Rng(0))
        return self.split.train.without(request.ids.tolist()), self.split.train.only(request.ids.tolist())

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """One class forgotten; random records; records of which nothing but memory tells the label. The subject is a model
        retrained without them."""
        made = []
        for selection in ("class=0", "random=0.2"):
            request = select(selection, self.split.train, self.split.classes, rng=Rng(0))
            retain = self.parted(selection)[0]
            subject, control = (self.fit(retain, selection, replica) for replica in range(2))
            made.append(Case(self.split, (request,), self.original, subject, "retrained", (control,)))
        return (*made, self.learnt_by_heart)

    @cached_property
    def learnt_by_heart(self) -> Case:
        """Random labels throughout: the original knows those of its training records, a retrained model has no way to."""
        kinds, draw = len(self.split.classes), Rng(0).child("labels").numpy()
        train, validation, test = (
            replace(part, targets=torch.from_numpy(draw.integers(0, kinds, len(part))))
            for part in (self.split.train, self.split.validation, self.split.test)
        )
        split = replace(self.split, train=train, validation=validation, test=test, fingerprint="random labels")
        request = select("random=0.3", train, split.classes, rng=Rng(0))
        retain, recipe = train.without(request.ids.tolist()), Recipe(epochs=40, batch_size=32, lr=0.05)
        original, subject, control = (
            self.learner.fit(self.task, part, recipe, Mlp(width=128, layers=3), rng=Rng(0).child("by heart", replica))
            for replica, part in enumerate((train, retain, retain))
        )
        return Case(split, (request,), original, subject, "retrained", (control,))


Check = Callable[[Any, Bench], None]
"""Raises ContractError, or whatever the member raises; says nothing where all is well."""

Applies = Callable[[Any], str]
"""Why a check has nothing to say of a member; empty where it has."""


def demand(holds: bool, got: str, expected: str) -> None:
    if not holds:
        raise ContractError(f"got {got}, expected {expected}")
