"""Training that leaves a record of every step, for unlearning that goes back over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn._trajectory import Recorder, flat_weights, gibibytes
from palimpsest.learn.base import Learner
from palimpsest.learn.loop import Checkpoint, Meter, batch_sizes, train
from palimpsest.learn.recipe import Recipe
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples


@dataclass(frozen=True)
class Recorded(Learner):
    """As `plain`, bit for bit. Kept are the weights before each step, the ids of its batch's records, its learning rate.

    The record takes (steps + 1)·(weights)·4 bytes in memory, on the disk for every model that is made, and in each
    checkpoint for the steps so far: it is for small models and short runs. Two neighbouring weights give the gradient of a
    batch, from which its records can often be reconstructed: guard the record as you guard the records.
    """

    about = "as plain, with a record of every step, for amnesiac and deltagrad"

    memory: float = setting(2.0, "GiB that the record may take", source="ours", least=0)

    def check(self, model: nn.Module, records: int, recipe: Recipe) -> None:
        steps, start = _steps(records, recipe), flat_weights(model)
        needed = gibibytes(steps, len(start), recipe.epochs * records, start.element_size())
        if needed > self.memory:
            got = f"a record of {needed:.3g} GiB ({steps} steps of {len(start)} weights)"
            do = "raise recorded.memory, or train a smaller model in fewer or larger steps"
            raise BadInput("recorded.memory", got=got, expected=f"at most {self.memory:g} GiB", do=do)

    def learn(
        self, model: nn.Module, task: Task, examples: Examples, recipe: Recipe, *, rng: Rng, meter: Meter,
        checkpoint: Checkpoint | None,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        recorder = Recorder(model, examples.ids, _steps(len(examples), recipe))
        train(model, task, examples, recipe, rng=rng, meter=meter, checkpoint=checkpoint, observer=recorder)
        return recorder.finish(model).kept()


def _steps(records: int, recipe: Recipe) -> int:
    return recipe.epochs * len(batch_sizes(records, recipe.batch_size))
