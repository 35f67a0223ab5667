"""Training from fresh weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from palimpsest.learn.base import Learner
from palimpsest.learn.loop import Checkpoint, Meter, train
from palimpsest.learn.recipe import Recipe
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples


@dataclass(frozen=True)
class Plain(Learner):
    """Fresh weights, then the recipe on all records."""

    about = "from fresh weights"

    def learn(
        self, model: nn.Module, task: Task, examples: Examples, recipe: Recipe, *, rng: Rng, meter: Meter,
        checkpoint: Checkpoint | None,
    ) -> None:  # fmt: skip
        train(model, task, examples, recipe, rng=rng, meter=meter, checkpoint=checkpoint)
