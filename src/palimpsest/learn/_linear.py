"""What the learners and unlearners of linear models share: the model as one matrix, and its records as another.

A linear model answers W·x with W of shape (k, d + 1), k classes, and x the flattened record, normalised as the model
normalises it, followed by a constant 1. So the bias is the weight of a constant feature, and is regularised like every other
weight. All of it in float64. Matrices: records X of shape (n, d + 1), classes of shape (n,).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palimpsest.catalog import name_of
from palimpsest.errors import BadInput
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.models.base import Model, Normalised
from palimpsest.rng import Rng
from palimpsest.task import Classification, Task
from palimpsest.types import Examples, Ids


@dataclass(frozen=True)
class LinearLearner(Learner):
    """Base of the learners of linear models. Raises BadInput for any other model, before training begins."""

    for_model: ClassVar[str] = "linear"
    tasks: ClassVar[tuple[str, ...]] = (Classification.name,)

    def skeleton(self, factory: Model, task: Task, rng: Rng) -> nn.Module:
        model = super().skeleton(factory, task, rng)
        layer(model, name_of(self))
        return model


L = TypeVar("L", bound=LinearLearner)


def layer(model: nn.Module, name: str) -> nn.Linear:
    """The one layer of a linear model. Raises BadInput, as `name`, for any other model."""
    network = model.network if isinstance(model, Normalised) else model
    parts = list(network) if isinstance(network, nn.Sequential) else [network]
    found = parts[-1] if parts else None
    others = [part for part in parts[:-1] if not isinstance(part, nn.Flatten)]
    if others or not isinstance(found, nn.Linear) or found.bias is None:
        got = f"a model with {type(others[0] if others else found).__name__} in it"
        expected = "a model that is linear in its normalised inputs, with a bias"
        raise BadInput(name, got=got, expected=expected, do="pass --model linear")
    return found


def rows(model: nn.Module, examples: Examples, name: str) -> Float[Tensor, "n d"]:
    """The records as the layer of a linear model sees them, and a 1; on the model's device."""
    device = layer(model, name).weight.device
    values = next(iter(examples.to(device).batch().inputs.values())).double()
    if isinstance(model, Normalised):
        values = (values - model.mean.double()) / model.std.double()
    values = values.flatten(1)
    return torch.cat([values, torch.ones(len(values), 1, dtype=torch.float64, device=device)], 1)


def publish(model: nn.Module, weights: Float[Tensor, "k d"], name: str) -> None:
    """Writes the weights into the model, rounded to its precision."""
    linear = layer(model, name)
    with torch.no_grad():
        linear.weight.copy_(weights[:, :-1])
        linear.bias.copy_(weights[:, -1])


def kept_of(trained: Trained, published: str, kind: type[L], name: str) -> tuple[L, dict[str, Tensor]]:
    """Such a model's learner, and what it kept, on the model's device. Raises BadInput where the model is another learner's, or
    has been changed since.

    published: which of the kept tensors holds the weights that the model has.
    """
    do = f"train with --learner {name}, and let only methods made for it unlearn"
    found = layer(trained.model, name)
    if not isinstance(trained.learner, kind) or published not in trained.kept:
        raise BadInput("weights", got=f"none that {name} made", expected=f"a model trained by {name}", do=do)
    kept = {key: value.to(found.weight.device) for key, value in trained.kept.items()}
    weights = kept[published].to(found.weight.dtype)
    if not torch.equal(torch.cat([found.weight, found.bias[:, None]], 1), weights):
        raise BadInput("weights", got="others than those kept beside them", expected=f"those that {name} made", do=do)
    return trained.learner, kept


def whole(trained: Trained, retain: Examples, forget: Examples, name: str) -> None:
    """Raises BadInput unless the two sets are all records that the model holds, without which no bound is true."""
    if len(retain) + len(forget) != len(trained.ids) or set(trained.ids) != {*retain.ids, *forget.ids}:
        got = f"{len(retain)} records to retain and {len(forget)} to forget"
        expected = f"together the {len(trained.ids)} that the model was trained on"
        raise BadInput(name, got=got, expected=expected, do="hand over all of its records")


class Saver:
    """Leaves the weights in the store once its time has come, and finds those of a run that died."""

    def __init__(self, checkpoint: Checkpoint | None, ids: Ids, meter: Meter) -> None:
        self.checkpoint, self.ids, self.meter = checkpoint, ids, meter
        self.saved = time.perf_counter()

    def found(self, weights: Tensor) -> tuple[Tensor, int]:
        """Weights and number of steps done: those of the last checkpoint, else the weights given, and 0."""
        last = self.checkpoint.store.get("checkpoint", self.checkpoint.spec) if self.checkpoint else None
        if last is None:
            return weights, 0
        self.meter.restore(last.info)
        return last.tensors["weights"].to(weights.device), int(last.info["step"])

    def save(self, weights: Tensor, step: int) -> None:
        if self.checkpoint is None or time.perf_counter() - self.saved <= self.checkpoint.every_seconds:
            return
        info = {"step": step, **self.meter.state()}
        self.checkpoint.save({"weights": weights}, info, self.ids)
        self.saved = time.perf_counter()

    def done(self) -> None:
        if self.checkpoint is not None:
            self.checkpoint.store.drop("checkpoint", self.checkpoint.spec)
