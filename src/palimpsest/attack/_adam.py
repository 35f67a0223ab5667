"""Adam for one tensor that is searched for, whose entries do not mix."""

from __future__ import annotations

import torch
from torch import Tensor

BETAS, TINY = (0.9, 0.999), 1e-8


class Adam:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def __init__(self, like: Tensor, decay: float = 0.0) -> None:
        self.first, self.second, self.count, self.decay = torch.zeros_like(like), torch.zeros_like(like), 0, decay

    def step(self, point: Tensor, slope: Tensor, rate: float | Tensor) -> Tensor:
        """The next point. rate: broadcast over the point."""
        self.count += 1
        self.first = BETAS[0] * self.first + (1 - BETAS[0]) * slope
        self.second = BETAS[1] * self.second + (1 - BETAS[1]) * slope.square()
        ahead = self.first / (1 - BETAS[0] ** self.count)
        spread = (self.second / (1 - BETAS[1] ** self.count)).sqrt() + TINY
        return point * (1 - rate * self.decay) - rate * ahead / spread
