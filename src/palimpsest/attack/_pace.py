"""The automatic step rule of APGD (Croce & Hein 2020, "Reliable evaluation of adversarial robustness", Algorithm 1), descending."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palimpsest.types import Array

INERTIA = 0.75
"""Share of a move that is the new step; the rest goes on as before (α)."""
ENOUGH = 0.75
"""Share of the steps since the last look that must have gained (ρ)."""


@dataclass
class Pace:
    """State of the rule, per record. before: the iterate before this one. stride: the step, as a share of the domain's width.
    last: the loss before this one. gains: steps that lowered the loss since the last look. mark: the best loss at that look.
    halved: whether the step was halved there."""

    before: Tensor
    stride: Tensor
    last: Tensor
    gains: Tensor
    mark: Tensor
    halved: Tensor

    @staticmethod
    def begin(start: Tensor, stride: Tensor) -> Pace:
        never = torch.full((len(start),), torch.inf, dtype=start.dtype, device=start.device)
        none = torch.zeros(len(start), dtype=torch.long, device=start.device)
        return Pace(start, stride, -never, none, never, none.bool())

    def keep(self, slots: Tensor, arranged: Callable[[Tensor], Tensor]) -> None:
        for name, value in vars(self).items():
            setattr(self, name, arranged(value[slots]))

    def add(self, other: Pace, arranged: Callable[[Tensor], Tensor]) -> None:
        for name, value in vars(self).items():
            setattr(self, name, arranged(torch.cat([value, getattr(other, name)])))

    def step(
        self,
        point: Tensor,
        sign: Tensor,
        loss: Tensor,
        ages: Array,
        spans: Array,
        width: Tensor,
        best: Tensor,
        least: Tensor,
        lower: Tensor,
        upper: Tensor,
    ) -> Tensor:
        """The next iterate: a step with inertia, or back to the best point with half the step.

        sign: of the gradient at `point`, where the loss is `loss`. ages: steps taken. spans: of the records that look back, the
        steps since their last look, else 0. best, least: the best point so far and its loss. lower, upper: the ball and box.
        """
        shape = (-1, *([1] * (point.dim() - 1)))
        self.gains = self.gains + (loss < self.last)
        self.last = loss
        back = torch.zeros_like(self.halved)
        if spans.any():
            span = torch.from_numpy(spans).to(loss.device)
            back = (span > 0) & ((self.gains < ENOUGH * span) | (~self.halved & (least >= self.mark)))
            self.stride = torch.where(back.view(shape), self.stride / 2, self.stride)
            self.halved = torch.where(span > 0, back, self.halved)
            self.mark = torch.where(span > 0, least, self.mark)
            self.gains = torch.where(span > 0, 0, self.gains)
        inertia = torch.from_numpy(np.where(ages == 0, 1.0, INERTIA)).to(point).view(shape)
        stepped = torch.clamp(point - self.stride * width * sign, lower, upper)
        moved = torch.clamp(point + inertia * (stepped - point) + (1 - inertia) * (point - self.before), lower, upper)
        self.before = torch.where(back.view(shape), best, point)
        return torch.where(back.view(shape), best, moved)


def checkpoints(steps: int) -> Array:
    """For each number of steps 0 … steps the steps since the last look where the rule looks back then, else 0: it looks after 22 %
    of all, then ever sooner, no sooner than after 6 %."""
    found, places, before = np.zeros(steps + 1, dtype=np.int64), [0.0, 0.22], 0
    while places[-1] <= 1:
        at = math.ceil(places[-1] * steps - 1e-9)
        if at > before:
            found[at], before = at - before, at
        places.append(places[-1] + max(places[-1] - places[-2] - 0.03, 0.06))
    return found
