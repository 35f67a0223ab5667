"""Distances between posteriors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def jensen_shannon(p: Float[Tensor, "n k"], q: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Jensen–Shannon divergence of two posteriors per record, in nats: 0 for equal ones, ln 2 for disjoint ones."""
    p, q = p.double(), q.double()
    middle = (p + q) / 2

    def kl(a: Tensor) -> Tensor:
        return torch.where(a > 0, a * (a.clamp_min(1e-300).log() - middle.clamp_min(1e-300).log()), 0.0).sum(1)

    return ((kl(p) + kl(q)) / 2).clamp_min(0.0)


def euclidean(p: Float[Tensor, "n k"], q: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """‖p − q‖₂ per record: 0 for equal posteriors, √2 for disjoint certain ones."""
    distance: Tensor = torch.linalg.vector_norm(p.double() - q.double(), dim=1)
    return distance
