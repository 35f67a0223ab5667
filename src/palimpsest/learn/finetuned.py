"""Training that goes on from given weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from palimpsest.catalog import setting
from palimpsest.learn.base import Learner
from palimpsest.learn.loop import Checkpoint, Meter, train
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.files import hash_file, load_into, read_weights
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples


@dataclass(frozen=True)
class Finetuned(Learner):
    """Given weights, then the recipe on all records.

    The weights must fit the model whole, head included; a head for other classes has to be replaced first. They are what
    the result keeps as its initial weights, and artifacts are keyed by their values, not by the file's name.

    Retraining starts from the same file. It is exact only if the records to be forgotten had no part in those weights;
    that cannot be checked here.
    """

    about = "from given weights"

    weights: str = setting(
        dataclasses.MISSING, "file or checkpoint folder to start from: safetensors, .pt, .ckpt …", source="the user"
    )

    def start(self, factory: Model, task: Task, rng: Rng) -> nn.Module:
        """A fresh model with the given weights. Raises BadInput where they cannot be read or do not fit."""
        model = super().start(factory, task, rng)
        load_into(model, read_weights(self.weights), self.weights)
        return model

    def learn(
        self, model: nn.Module, task: Task, examples: Examples, recipe: Recipe, *, rng: Rng, meter: Meter,
        checkpoint: Checkpoint | None,
    ) -> None:  # fmt: skip
        train(model, task, examples, recipe, rng=rng, meter=meter, checkpoint=checkpoint)

    def identity_extra(self) -> dict[str, Any]:
        """The hash of the weights in the place of the path: a moved file is the same learner, an edited one another."""
        return {"weights": hash_file(self.weights)}
