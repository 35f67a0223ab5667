"""A strictly convex problem whose optimum is known: softmax regression with weight decay, solved in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples

DECAY = 0.01


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def objective(model: nn.Module, records: Examples, count: int | None = None, decay: float = DECAY) -> Tensor:
    """Σℓ/count + decay/2·‖θ‖² over the records; `count` is their number unless told."""
    batch = records.batch()
    logits = model(batch.inputs["image"].double())
    losses = logits.logsumexp(1) - logits[torch.arange(len(records)), batch.targets]
    squares = sum(parameter.square().sum() for parameter in model.parameters())
    return losses.sum() / (count or len(records)) + decay / 2 * squares


def optimum(task: Classification, records: Examples, count: int | None = None, decay: float = DECAY) -> nn.Module:
    """The model that minimises `objective`, to convergence."""
    model = Linear().build(task, Rng(0)).double()
    solver = torch.optim.LBFGS(
        model.parameters(), max_iter=3000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = objective(model, records, count, decay)
        loss.backward()
        return loss

    solver.step(closure)
    closure()
    assert max(float(parameter.grad.abs().max()) for parameter in model.parameters()) < 1e-8, "not converged"
    return model.eval()


def of_kind(cls: type[Classification], task: Classification) -> Classification:
    """The same task as an instance of a subclass."""
    return cls(**{entry.name: getattr(task, entry.name) for entry in dataclasses.fields(task)})


def order_of(errors: Sequence[float], counts: Sequence[int]) -> float:
    """The exponent a of errors ~ counts^a, by least squares on logarithms."""
    return float(np.polyfit(np.log(counts), np.log(errors), 1)[0])
