"""Single-gradient unlearning: add back one gradient, taken at the weights that training started from."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, trainable
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner

PASS = 256  # records of one forward and backward pass; the sum does not depend on it


@dataclass(frozen=True)
class SingleGradient(Unlearner):
    """θ_u = θ + (η·m/b)·Σ∇CE(D_u), the gradient taken at θ₀, the initial or pre-trained weights (inversion paper, Eq. 12
    and 13, after Thudi et al. 2022).

    It undoes exactly what the records did in one plain SGD step from θ₀ (m = 1, no momentum, no weight decay) where the denominator
    b of the mean stays what it was; with more steps, momentum, decay or a schedule it is an approximation that
    gets worse as θ moves away from θ₀. The gradient is taken in evaluation mode: batch norm uses the running statistics of
    θ₀, and those of θ stay as they are. Guarantees nothing.
    """

    aliases = ("single-gradient",)
    about = "add back one gradient, taken at the initial weights"
    paper = "Thudi et al. 2022; inversion paper, Eq. 12 and 13"
    spends = "one gradient of the forget set"
    use = "as the cheapest method and the subject of the inversion paper; after one or few epochs of plain SGD"

    lr: float | None = setting(
        None,
        "learning rate of training (η); none: the recipe's",
        source="inversion paper: that of the fine-tuning, 0.001",
        search=(1e-4, 10.0),
        above=0,
    )
    epochs: int | None = setting(
        None,
        "epochs of training (m); none: the recipe's",
        source="inversion paper: that of the fine-tuning, 1 to 3",
        least=1,
    )
    batch_size: int | None = setting(
        None,
        "batch size of training (b); none: the recipe's",
        source="inversion paper: that of the fine-tuning, 128",
        least=1,
    )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        scale = self.scale(trained)
        initial = copy.deepcopy(model)
        initial.load_state_dict(trained.initial())
        initial.eval()
        start = trainable(initial)
        totals = [torch.zeros_like(parameter) for parameter in start]
        for batch in forget.batches(PASS):
            loss = trained.task.loss(initial, batch, reduction="sum")
            gradients = torch.autograd.grad(loss, start, allow_unused=True, materialize_grads=True)
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient
            meter.count(len(batch))
        with torch.no_grad():
            for parameter, total in zip(trainable(model), totals, strict=True):
                parameter.add_(scale * total)

    def scale(self, trained: Trained) -> float:
        """η·m/b, from the settings or else from the model's recipe."""
        values = {}
        for name in ("lr", "epochs", "batch_size"):
            value = getattr(self, name)
            if value is None and trained.recipe is None:
                got = f"no {name}, and weights without a recipe"
                raise BadInput("single_gradient", got=got, expected="the value of training", do=f"set {name}")
            values[name] = float(getattr(trained.recipe, name) if value is None else value)
        return values["lr"] * values["epochs"] / values["batch_size"]
