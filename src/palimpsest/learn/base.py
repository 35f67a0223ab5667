"""How a model comes to be, and what is kept of how it came to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.catalog import Checked
from palimpsest.errors import BadInput
from palimpsest.language import Language
from palimpsest.learn.loop import Checkpoint, Meter, diverged
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.files import not_finite
from palimpsest.reconstruction import Reconstruction
from palimpsest.rng import Rng
from palimpsest.task import Classification, Task, check_task
from palimpsest.types import Cost, Examples, Ids


@dataclass(frozen=True)
class Trained:
    """A model and what made it.

    ids: the records that it was trained on and has not unlearned. learner, recipe, factory: how it was made; None for
    imported weights, which are keyed by their hash (`origin`). kept: artifacts of its learner, such as the weights it
    started from (`"initial/…"`). budget: the ε, at the method's own δ, to which a certified method certifies this model; None where
    none does.
    checkpoint: where a method that trains leaves its state, so that a killed run goes on. validation: records that the
    model was not trained on, for methods that look when to stop; None where there are none.
    """

    model: nn.Module
    task: Task
    ids: Ids
    learner: Learner | None = None
    recipe: Recipe | None = None
    factory: Model | None = None
    kept: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    budget: float | None = None
    cost: Cost = field(default_factory=Cost)
    origin: str = ""
    checkpoint: Checkpoint | None = field(default=None, repr=False)
    validation: Examples | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def with_model(self, model: nn.Module) -> Trained:
        return replace(self, model=model)

    def initial(self) -> dict[str, Tensor]:
        """State dict of the weights that training started from; raises BadInput where they were not kept."""
        state = {name[8:]: value for name, value in self.kept.items() if name.startswith("initial/")}
        if not state:
            raise BadInput(
                "initial weights", got="none kept", expected="a model that a learner of this package trained"
            )
        return state


@dataclass(frozen=True)
class Learner(Checked, ABC):
    """Base of all learners. `fit` checks, builds, seeds and meters; `learn` holds the learner's own idea.

    for_model: name of the only model that it can train; empty for any. tasks: names of the tasks that it is for.
    """

    kind: ClassVar[str] = "learners"
    revision: ClassVar[int] = 1
    for_model: ClassVar[str] = ""
    tasks: ClassVar[tuple[str, ...]] = (Classification.name, Language.name, Reconstruction.name)
    about: ClassVar[str] = ""

    @abstractmethod
    def learn(
        self,
        model: nn.Module,
        task: Task,
        examples: Examples,
        recipe: Recipe,
        *,
        rng: Rng,
        meter: Meter,
        checkpoint: Checkpoint | None,
    ) -> Mapping[str, Tensor] | None:
        """Trains the fresh `model` in place on all of `examples`. Returns what to keep beside the initial weights."""  # fmt: skip

    @property
    def pretraining(self) -> Recipe | None:
        """How the weights that it starts from are learnt from public records; None where it asks for no such weights."""
        return None

    def skeleton(self, factory: Model, task: Task, rng: Rng) -> nn.Module:
        """A model such as it trains, with fresh weights."""
        return factory.build(task, rng)

    def start(self, factory: Model, task: Task, rng: Rng, initial: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The model that training starts from. initial: what `pretraining` has led to."""
        return self.skeleton(factory, task, rng)

    def check(self, model: nn.Module, records: int, recipe: Recipe) -> None:
        """Raises BadInput where so many records, this model or this recipe are not for this learner. Trains nothing."""

    def fit(
        self,
        task: Task,
        examples: Examples,
        recipe: Recipe,
        factory: Model,
        *,
        rng: Rng,
        checkpoint: Checkpoint | None = None,
        device: torch.device | str = "cpu",
        initial: Mapping[str, Tensor] | None = None,
    ) -> Trained:
        """A model trained on these records. The same stream, threads and device give the same weights.

        initial: the state dict that `pretraining` has led to, for a learner that asks for one.
        Raises BadInput for no records, fewer than two classes, or training that diverges.
        """  # fmt: skip
        check_task(self, task.name)
        present = np.unique(examples.targets.cpu().numpy())
        if len(present) < 2:
            got = f"{len(examples)} records in {len(present)} classes"
            raise BadInput("training records", got=got, expected="two records or more in two classes or more")
        model = self.start(factory, task, rng, initial).to(device)
        self.check(model, len(examples), recipe)
        begun = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        kept = {f"initial/{name}": value for name, value in begun.items()}
        meter = Meter(device=device)
        kept |= self.learn(model, task, examples, recipe, rng=rng, meter=meter, checkpoint=checkpoint) or {}
        broken = not_finite(model.state_dict(), begun)
        if broken:
            raise diverged(f"a NaN or infinite value in {broken[0]}", recipe)
        model.eval()
        return Trained(model, task, examples.ids, self, recipe, factory, kept, cost=meter.cost)
