"""Images for tests, and pairs that cannot be compared."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


BAD = [
    (torch.ones(2, 3, 4, 4), torch.ones(2, 1, 4, 4), r"\(2, 3, 4, 4\) and \(2, 1, 4, 4\)"),
    (torch.ones(1, 3, 4, 4), torch.ones(2, 3, 4, 4), r"\(1, 3, 4, 4\) and \(2, 3, 4, 4\)"),
    (torch.ones(3, 4, 4), torch.ones(3, 4, 4), "expected .n, c, h, w."),
    (torch.ones(0, 3, 4, 4), torch.ones(0, 3, 4, 4), "at least one of each"),
    (torch.ones(1, 3, 4, 4), torch.full((1, 3, 4, 4), math.nan), "not finite"),
    (torch.full((1, 3, 4, 4), math.inf), torch.ones(1, 3, 4, 4), "not finite"),
    (torch.full((1, 3, 4, 4), 255.0), torch.ones(1, 3, 4, 4), "values from 255 to 255"),
    (torch.ones(1, 3, 4, 4), torch.full((1, 3, 4, 4), -1.0), "values from -1 to -1"),
    (torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4, dtype=torch.uint8), "divide uint8 images by 255"),
]
