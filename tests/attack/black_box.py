"""A softmax-linear model that answers queries and counts them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHAPE = (1, 4, 4)
UNIT = (torch.zeros(()), torch.ones(()))


class Asked:
    """softmax(scale·Wx + b), three classes, in float64; it counts what it is asked and looks whether that is in the domain."""

    def __init__(
        self, domain: tuple[Tensor, Tensor] = UNIT, shape: tuple[int, ...] = SHAPE, scale: float = 4.0
    ) -> None:
        draw = torch.Generator().manual_seed(4)
        self.weight = scale * torch.randn(3, math.prod(shape), generator=draw, dtype=torch.float64)
        self.bias = -self.weight.sum(1) / 2
        self.domain, self.records, self.largest, self.within = domain, 0, 0, True

    def __call__(self, inputs: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.records += len(inputs)
        self.largest = max(self.largest, len(inputs))
        self.within &= bool(((inputs >= self.domain[0]) & (inputs <= self.domain[1])).all())
        return (inputs.flatten(1).double() @ self.weight.T + self.bias).softmax(1)

    def labels(self, inputs: Tensor) -> Tensor:
        return self(inputs).argmax(1)
