"""What the checks work on: digits, and small models of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from palimpsest.case import Case
from palimpsest.data.digits import Digits
from palimpsest.errors import ContractError
from palimpsest.forget.selection import select
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples, Split


@dataclass(frozen=True)
class Bench:
    """Digits, a small network trained on them, and the same with a class or some records left out; made when first asked for.

    learner: the one that trains the model to be unlearned.
    """

    records: int = 400
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=10, batch_size=50))
    learner: Learner = field(default_factory=Plain)

    @cached_property
    def split(self) -> Split:
        return Digits(limit=self.records).load()

    @cached_property
    def task(self) -> Classification:
        return Classification.of(self.split)

    def fit(self, examples: Examples, *stream: str | int) -> Trained:
        return self.learner.fit(self.task, examples, self.recipe, ConvNet(width=3), rng=Rng(0).child(*stream))

    @cached_property
    def original(self) -> Trained:
        return self.fit(self.split.train, "original")

    def parted(self, selection: str) -> tuple[Examples, Examples]:
        """Retain and forget records of a selection."""
        request = select(selection, self.split.train, self.split.classes, rng=Rng(0))
        return self.split.train.without(request.ids.tolist()), self.split.train.only(request.ids.tolist())

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """One class forgotten; then random records. The subject is a model retrained without them."""
        made = []
        for selection in ("class=0", "random=0.2"):
            request = select(selection, self.split.train, self.split.classes, rng=Rng(0))
            retain = self.parted(selection)[0]
            subject, control = (self.fit(retain, selection, replica) for replica in range(2))
            made.append(Case(self.split, (request,), self.original, subject, "retrained", (control,)))
        return tuple(made)


Check = Callable[[Any, Bench], None]
"""Raises ContractError, or whatever the member raises; says nothing where all is well."""


def demand(holds: bool, got: str, expected: str) -> None:
    if not holds:
        raise ContractError(f"got {got}, expected {expected}")
