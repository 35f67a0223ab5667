"""What a defence is: it wraps what it defends and keeps its kind. A guarded unlearner is an unlearner, a released model a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.catalog import Checked, name_of
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.rng import Rng
from palimpsest.task import Task, as_classification
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner


@dataclass(frozen=True)
class Defence(Checked, ABC):
    """Base of all defences. stage: when it acts (S2 while unlearning, S3 on what is released). weakens: the attack that it is
    against. paper, about: one line each."""

    kind: ClassVar[str] = "defences"
    revision: ClassVar[int] = 1
    stage: ClassVar[str] = ""
    weakens: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    about: ClassVar[str] = ""


@dataclass(frozen=True)
class Guard(Defence, ABC):
    """A defence that acts while an unlearner unlearns (S2). keeps_guarantee: whether what the method guarantees holds under it."""

    stage: ClassVar[str] = "S2"
    keeps_guarantee: ClassVar[bool] = True

    @abstractmethod
    def check(self, unlearner: Unlearner) -> None:
        """Raises BadInput for a method that it cannot guard."""

    @abstractmethod
    def update(
        self,
        unlearner: Unlearner,
        model: nn.Module,
        trained: Trained,
        retain: Examples,
        forget: Examples,
        *,
        rng: Rng,
        meter: Meter,
    ) -> Mapping[str, Tensor] | None:
        """What `unlearner.update` does, guarded."""


@dataclass(frozen=True)
class Guarded(Unlearner):
    """An unlearner with a guard around it: an unlearner again, with the same guarantee, learner and needs, at a higher cost."""

    unlearner: Unlearner = None  # type: ignore[assignment]
    guard: Guard = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.guard.check(self.unlearner)
        for name in ("guarantee", "needs", "needs_recipe", "mixes"):
            object.__setattr__(self, name, getattr(self.unlearner, name))
        if not self.guard.keeps_guarantee:
            object.__setattr__(self, "guarantee", "none")

    @property
    def label(self) -> str:
        return f"{name_of(self.unlearner)}+{name_of(self.guard)}"

    def check_model(self, model: nn.Module) -> None:
        self.unlearner.check_model(model)

    def check_recipe(self, recipe: Recipe) -> None:
        self.unlearner.check_recipe(recipe)

    def budget(self, kept: Mapping[str, Tensor]) -> float | None:
        return self.unlearner.budget(kept) if self.guard.keeps_guarantee else None

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor] | None:
        return self.guard.update(self.unlearner, model, trained, retain, forget, rng=rng, meter=meter)


@dataclass(frozen=True)
class ModelRelease(Defence, ABC):
    """A defence between the unlearned model and the world (S3): what is served in the model's place.

    `prepare` makes, from records that may be kept only, what all models of a situation share; `release` puts it around one model.
    """

    stage: ClassVar[str] = "S3"

    @abstractmethod
    def part(self, task: Task) -> nn.Module:
        """The part that all models share, with fresh weights from torch's ambient generator. Raises BadInput where it is not for
        this task or its records."""

    @abstractmethod
    def prepare(self, part: nn.Module, task: Task, retain: Examples, *, rng: Rng, meter: Meter) -> None:
        """Trains the fresh part in place, on its own device. It sees no model: what all share can hold retained records only."""

    def restore(self, part: nn.Module, retain: Examples) -> None:
        """Puts back what a stored part leaves out, from the records that it was prepared with: records' contents are not stored."""

    @abstractmethod
    def release(self, part: nn.Module, model: nn.Module) -> nn.Module:
        """What is served: takes what `model` takes and answers with what it answers."""


@dataclass(frozen=True)
class OutputRelease(ModelRelease, ABC):
    """A defence of what a service answers with: posteriors in, posteriors out. It is no defence against those who hold the weights.

    It stands before the original as before what is unlearned from it.
    """

    def check(self, task: Task) -> None:
        """Raises BadInput where it is not for this task."""
        as_classification(task, name_of(self))

    @abstractmethod
    def answers(self, posterior: Tensor) -> Tensor:
        """What is answered in the place of posteriors, shape (n, k): posteriors too, with the same class highest."""

    def part(self, task: Task) -> nn.Module:
        self.check(task)
        return nn.Identity()

    def prepare(self, part: nn.Module, task: Task, retain: Examples, *, rng: Rng, meter: Meter) -> None:
        """It needs no records."""

    def release(self, part: nn.Module, model: nn.Module) -> nn.Module:
        return Answering(model, self)


LEAST = 1e-30
"""A posterior of zero counts as this much, so that its logarithm is a number."""


class Answering(nn.Module):
    """A model whose logits are the logarithms of what a release answers with."""

    def __init__(self, model: nn.Module, release: OutputRelease) -> None:
        super().__init__()
        self.model, self.how = model, release

    def forward(self, inputs: Tensor) -> Tensor:
        answer = self.model(inputs)
        logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
        return self.how.answers(F.softmax(logits.float(), 1)).clamp_min(LEAST).log()
