"""A small network for the tests of weight files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from palimpsest.rng import Rng


def net(seed: int = 0) -> nn.Module:
    with Rng(seed).ambient():
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
