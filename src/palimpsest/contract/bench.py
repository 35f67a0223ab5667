"""What the checks work on: digits, and small models of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from palimpsest.attack.base import Attack
from palimpsest.audit.controls import known_leak
from palimpsest.case import Case
from palimpsest.catalog import make
from palimpsest.data.base import Dataset
from palimpsest.data.diagnoses import Diagnoses
from palimpsest.data.digits import Digits
from palimpsest.errors import ContractError
from palimpsest.forget.selection import select
from palimpsest.language import Language
from palimpsest.learn._extractor import Extractor, trained_here
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.gpt2 import Gpt2
from palimpsest.models.linear import Linear
from palimpsest.models.masked_autoencoder import MaskedAutoencoder
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification, Task
from palimpsest.threat import Ground, TrainingView
from palimpsest.types import Examples, ForgetRequest, Split


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

    data: Dataset = field(default_factory=lambda: Digits(limit=400))
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=10, batch_size=32))
    learner: Learner = field(default_factory=Plain)
    model: Model | None = None
    extractors: dict[tuple[Extractor, str], nn.Module] = field(default_factory=dict)
    poisonings: dict[str, Case] = field(default_factory=dict)

    def extract(self, wanted: Extractor, split: Split) -> nn.Module:
        """The classifier by whose features images are compared, trained once, and briefly."""
        key = (wanted, split.fingerprint)
        if key not in self.extractors:
            brief = (
                wanted if wanted.given else replace(wanted, width=min(4, wanted.width), epochs=min(2, wanted.epochs))
            )
            self.extractors[key] = trained_here(brief, split)
        return self.extractors[key]

    @staticmethod
    def of(tasks: Collection[str], learner: Learner, recipe: Mapping[str, Any], *, mixes: bool = True) -> Bench:
        """A bench of the first of these tasks. recipe: what a method needs of it. mixes: see `Unlearner`."""
        if Language.name in tasks and Classification.name not in tasks:
            read = Recipe(**{"epochs": 15, "batch_size": 32, "optimizer": "adamw", "lr": 3e-3, **recipe})
            writer = Gpt2(layers=1, heads=2, width=32, dropout=0.0, writing=0.1)
            return Bench(data=Diagnoses(tokens=48, told=4), recipe=read, learner=learner, model=writer)
        if Classification.name in tasks:
            plain = Recipe(**{"epochs": 10, "batch_size": 32, **recipe})
            return Bench(recipe=plain, learner=learner, model=None if mixes else Mlp(width=32, layers=2))
        small = MaskedAutoencoder(patch=2, width=32, depth=1, heads=4, decoder_width=32, decoder_depth=1)
        slow = Recipe(**{"epochs": 8, "batch_size": 32, "optimizer": "adamw", "lr": 3e-3, **recipe})
        return Bench(recipe=slow, learner=learner, model=small)

    @cached_property
    def split(self) -> Split:
        split = self.data.load()
        return self.builder.task(split).prepare(split)

    @cached_property
    def task(self) -> Task:
        return self.builder.task(self.split)

    @cached_property
    def builder(self) -> Model:
        return self.model or factory(self.learner)

    def fit(self, examples: Examples, *stream: str | int) -> Trained:
        return self.learner.fit(self.task, examples, self.recipe, self.builder, rng=Rng(0).child(*stream))

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
        return (*self.ordinary, self.learnt_by_heart)

    @cached_property
    def ordinary(self) -> tuple[Case, ...]:
        """The first two of these: half of a class where there are two."""
        made = []
        for selection in ("class=0" if len(self.split.classes) > 2 else "class=0:0.5", "random=0.2"):
            request = select(selection, self.split.train, self.split.classes, rng=Rng(0))
            retain = self.parted(selection)[0]
            subject, control = (self.fit(retain, selection, replica) for replica in range(2))
            made.append(self._case(self.split, request, self.original, subject, control))
        return tuple(made)

    def poisoned(self, attack: Attack) -> Case:
        """Records handed in by an attack, and trained on; the subject is a model retrained without them."""
        key = repr(attack)
        if key not in self.poisonings:
            case = self._honest(attack.owns)
            submission = attack.prepare(self.view(attack), rng=Rng(0).child("prepare"))
            train = self.split.train.altered(submission.ids, submission.inputs, submission.targets)
            split, original = replace(self.split, train=train), self.fit(train, "original")
            self.poisonings[key] = replace(case, split=split, original=original, submission=submission)
        return self.poisonings[key]

    def view(self, attack: Attack) -> TrainingView:
        """What an adversary is shown who owns the records of `poisoned`."""
        own = self.split.train.only(self._honest(attack.owns).forgotten)

        def train(examples: Examples, rng: Rng, share: float) -> Trained:
            recipe = replace(self.recipe, epochs=max(1, round(share * self.recipe.epochs)))
            return self.learner.fit(self.task, examples, recipe, self.builder, rng=rng)

        return TrainingView(attack.threat, Ground(self.split, own, self.task, self.recipe, self.builder, train))

    def _honest(self, selection: str) -> Case:
        """The same without anything handed in: two models trained without the records."""
        if selection not in self.poisonings:
            request = select(selection, self.split.train, self.split.classes, rng=Rng(0))
            retain = self.split.train.without(request.ids.tolist())
            subject, control = (self.fit(retain, "honest", replica) for replica in range(2))
            self.poisonings[selection] = self._case(self.split, request, self.original, subject, control)
        return self.poisonings[selection]

    @cached_property
    def deletions(self) -> tuple[Case, ...]:
        """One record of each class deleted alone from a linear model, of which its gradient tells all. The subject is the original
        after one plain step on the record."""
        return self._deleted(lambda count: 1)

    @cached_property
    def class_deletions(self) -> tuple[Case, ...]:
        """Half of the records of each class, deleted alone in the same way."""
        return self._deleted(lambda count: count // 2)

    def _deleted(self, share: Callable[[int], int]) -> tuple[Case, ...]:
        targets, recipe = self.split.train.targets, Recipe(epochs=5, batch_size=32, lr=0.05)
        original = Plain().fit(self.task, self.split.train, recipe, Linear(), rng=Rng(0).child("deletions"))
        made = []
        for label in torch.unique(targets).tolist():
            mine = self.split.train.ids[(targets == label).numpy()]
            request = ForgetRequest(mine[: share(len(mine))], f"records of class {label}")
            case = Case(self.split, (request,), original, original, "known-leak", extract=self.extract)
            made.append(replace(case, subject=known_leak(case)))
        return tuple(made)

    def _case(
        self, split: Split, request: ForgetRequest, original: Trained, subject: Trained, control: Trained
    ) -> Case:
        return Case(split, (request,), original, subject, "retrained", (control,), extract=self.extract)

    @cached_property
    def learnt_by_heart(self) -> Case:
        """Random labels, or random images, throughout: the original knows its training records, a retrained model has no way to."""
        return self._labels if isinstance(self.task, Classification) else self._noise

    @cached_property
    def _noise(self) -> Case:
        """Images of noise, of which half tells nothing of the other half."""
        draw = Rng(0).child("noise").numpy()
        pixels = torch.from_numpy(draw.integers(0, 256, (90, 1, 8, 8), dtype=np.uint8))
        whole = Examples.of({"image": pixels}, torch.arange(90) % 10, [f"noise/{row}" for row in range(90)])
        train, validation, test = (whole.take(list(range(*ends))) for ends in ((0, 60), (60, 70), (70, 90)))
        bare = replace(self.split, train=train, validation=validation, test=test, fingerprint="noise")
        large = MaskedAutoencoder(patch=4, width=64, depth=1, heads=4, decoder_width=64, decoder_depth=1)
        task = large.task(bare)
        split = task.prepare(bare)
        request = select("random=0.3", split.train, split.classes, rng=Rng(0))
        retain = split.train.without(request.ids.tolist())
        recipe = Recipe(epochs=80, batch_size=30, optimizer="adamw", lr=3e-3)
        original, subject, control = (
            self.learner.fit(task, part, recipe, large, rng=Rng(0).child("by heart", replica))
            for replica, part in enumerate((split.train, retain, retain))
        )
        return self._case(split, request, original, subject, control)

    @cached_property
    def _labels(self) -> Case:
        kinds, draw = len(self.split.classes), Rng(0).child("labels").numpy()
        train, validation, test = (
            replace(part, targets=torch.from_numpy(draw.integers(0, kinds, len(part))))
            for part in (self.split.train, self.split.validation, self.split.test)
        )
        memory: Model = Mlp(width=128, layers=3)
        recipe = Recipe(epochs=40, batch_size=32, lr=0.05)
        if isinstance(self.task, Language):  # as many as are soon known by heart
            recipe, memory, train = replace(self.recipe, epochs=60), self.builder, train.take(list(range(80)))
        split = replace(self.split, train=train, validation=validation, test=test, fingerprint="random labels")
        request = select("random=0.3", train, split.classes, rng=Rng(0))
        retain = train.without(request.ids.tolist())
        original, subject, control = (
            self.learner.fit(self.task, part, recipe, memory, rng=Rng(0).child("by heart", replica))
            for replica, part in enumerate((train, retain, retain))
        )
        return self._case(split, request, original, subject, control)


Check = Callable[[Any, Bench], None]
"""Raises ContractError, or whatever the member raises; says nothing where all is well."""

Applies = Callable[[Any], str]
"""Why a check has nothing to say of a member; empty where it has."""


def demand(holds: bool, got: str, expected: str) -> None:
    if not holds:
        raise ContractError(f"got {got}, expected {expected}")
