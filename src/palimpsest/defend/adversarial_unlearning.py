"""Adversarial unlearning: whatever is done to a forgotten record is done to its attacked self too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.attack.folding import outputs
from palimpsest.attack.residual.base import LOSSES
from palimpsest.attack.search import search
from palimpsest.catalog import name_of, setting
from palimpsest.defend.base import Guard
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Classification, as_classification
from palimpsest.types import Batch, Examples
from palimpsest.unlearn.base import Unlearner

Craft = Callable[[nn.Module, Batch], Tensor]
"""(model as it is now, forget batch) → attacked inputs of that batch."""


@dataclass(frozen=True)
class AdversarialUnlearning(Guard):
    """min E[L_u(f_u(x_u), y) + max_δ L_u(f_u(δ), y)], δ by UMA against the model as it is at that step (UMA paper, Eq. 6).

    In each step on the forget set the batch is attacked: inputs within ε at which the model answers as the original did on the
    record. The method's own loss is then taken on both, with the same targets, and added. For methods that take steps on the
    forget set. The paper prints no radius, steps or step size of the inner attack: those are ours.

    Guarantees nothing: it is robust, at best, against the attack that it trained with and weaker ones. Costs `steps` gradients of
    the input for each forget record and pass.
    """

    weakens = "uma"
    paper = "UMA paper, Eq. 6 and Table 4"
    about = "unlearns the forget records' attacked selves too"

    epsilon: float = setting(
        16 / 255, "radius of the L∞ ball, as a share of the domain's width", source="ours", above=0, most=1
    )
    steps: int = setting(5, "gradient steps of the inner attack", source="ours", least=1)
    step_size: float = setting(6 / 255, "step, as a share of the domain's width", source="ours", above=0)
    weight: float = setting(1.0, "weight of the attacked term", source="paper: one", above=0)

    def check(self, unlearner: Unlearner) -> None:
        if not unlearner.trains_on_forget:
            got, expected = name_of(unlearner), "a method that takes steps on the forget set, such as random_label"
            raise BadInput("adversarial_unlearning", got=got, expected=expected)

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
        original = copy.deepcopy(trained.model).eval().requires_grad_(False)
        task = as_classification(trained.task, name_of(self))
        turns = iter(range(2**31))

        def craft(now: nn.Module, batch: Batch) -> Tensor:
            inputs = batch.inputs[task.attacked_input]
            with torch.no_grad():
                wanted = F.softmax(outputs(original, inputs), 1)
            found = search(
                now,
                inputs,
                wanted,
                LOSSES["kl"],
                low=task.domain[0],
                high=task.domain[1],
                epsilon=self.epsilon,
                step_size=self.step_size,
                steps=self.steps,
                batch_size=len(inputs),
                layout="contiguous",
                rng=rng.child("adversary", next(turns)),
            )
            meter.count(found.evaluations + len(inputs), self.steps)
            return found.inputs

        attacked = Attacked(**_fields(task), craft=craft, weight=self.weight)
        return unlearner.update(
            model, replace(trained, task=attacked), retain, Marked.these(forget), rng=rng, meter=meter
        )


@dataclass(frozen=True)
class MarkedBatch(Batch):
    """A batch of records to be forgotten."""


@dataclass(frozen=True)
class Marked(Examples):
    """Records to be forgotten, whose batches say so, whatever subset of them is taken."""

    @staticmethod
    def these(records: Examples) -> Marked:
        return Marked(**_fields(records))

    def batch(self, positions: Tensor | None = None) -> Batch:
        plain = super().batch(positions)
        return MarkedBatch(plain.inputs, plain.targets)


@dataclass(frozen=True)
class Attacked(Classification):
    """The same task, whose losses on batches to be forgotten have the attacked batch's loss added."""

    craft: Craft = field(kw_only=True, repr=False, compare=False)
    weight: float = field(kw_only=True)

    def loss(self, model: nn.Module, batch: Batch, *, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
        own = super().loss(model, batch, reduction=reduction, label_smoothing=label_smoothing)
        if not isinstance(batch, MarkedBatch):
            return own
        other = Batch({**batch.inputs, self.attacked_input: self.craft(model, batch)}, batch.targets)
        return own + self.weight * super().loss(model, other, reduction=reduction, label_smoothing=label_smoothing)

    def distillation(self, student: nn.Module, teacher: nn.Module, batch: Batch, temperature: float) -> Tensor:
        own = super().distillation(student, teacher, batch, temperature)
        if not isinstance(batch, MarkedBatch):
            return own
        other = Batch({**batch.inputs, self.attacked_input: self.craft(student, batch)}, batch.targets)
        return own + self.weight * super().distillation(student, teacher, other, temperature)


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields by name: what a kind of it is made of."""
    return {entry.name: getattr(value, entry.name) for entry in fields(value)}
