"""A linear classifier: softmax regression, the convex model on which theory gives known answers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import nn

from palimpsest.models.base import Model
from palimpsest.task import Classification


@dataclass(frozen=True)
class Linear(Model):
    """Softmax regression on the flattened, normalised input."""

    about = "softmax regression"

    def network(self, task: Classification) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(task.shape), task.classes))
