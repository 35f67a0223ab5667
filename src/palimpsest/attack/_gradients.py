"""Directions in a model's weights: what gradient inversion and gradient matching share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SPANNED = 1e-6
"""Share of a direction's length up to which what others leave of it is rounding."""


def along(gradients: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    """Inner products of r gradients with one direction, (r,)."""
    return torch.stack([(g * d).flatten(1).sum(1) for g, d in zip(gradients, direction, strict=True)]).sum(0)


def length(gradients: Sequence[Tensor]) -> Tensor:
    """Lengths of r gradients, (r,); above zero, so that it has a slope everywhere."""
    return (torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0) + 1e-30).sqrt()


def scaled(gradients: Sequence[Tensor]) -> list[Tensor]:
    """r gradients with 1 for their largest entry, so that squares of small ones are not lost; as they are where all is zero."""
    most = torch.stack([g.detach().flatten(1).abs().amax(1) for g in gradients]).amax(0)
    factor = torch.where(most > 0, most, torch.ones_like(most))
    return [g / factor.view(-1, *([1] * (g.dim() - 1))) for g in gradients]


def directed(gradient: Sequence[Tensor]) -> list[Tensor] | None:
    """The same direction, of length 1, in float32; lengths are taken in float64. None for a gradient of zero."""
    whole = torch.stack([part.double().square().sum() for part in gradient]).sum().sqrt()
    return [(part.double() / whole).float() for part in gradient] if bool(whole > 0) else None


def orthonormal(directions: Iterable[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Orthogonal directions of length one that span the given ones, in float64; without those that the ones before them span."""
    found = list[list[Tensor]]()
    for direction in directions:
        rest = [part.double() for part in direction]
        whole = _length(rest)
        for one in found * 2:  # once more, for what rounding left
            along = sum(float((a * b).sum()) for a, b in zip(rest, one, strict=True))
            rest = [a - along * b for a, b in zip(rest, one, strict=True)]
        left = _length(rest)
        if left > SPANNED * whole:
            found.append([part / left for part in rest])
    return found


def _length(direction: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in direction))
