"""The L-BFGS approximation of a Hessian in compact form: products with B, not with its inverse."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor


class QuasiHessian:
    """B from the last `history` pairs (s, y) of a change of the weights and the change of the gradient that came with it.

    With S and Y the pairs as columns, σ = sᵀy/sᵀs of the last one, L the part of SᵀY below the diagonal and D its diagonal:
    B = σI − [σS Y]·[[σSᵀS, L], [Lᵀ, −D]]⁻¹·[σSᵀ; Yᵀ] (Byrd, Nocedal & Schnabel 1994, Theorem 2.3). It is symmetric, positive
    definite, and B·s = y for the last pair. Inner products and the 2m×2m system are in float64.
    """

    def __init__(self, history: int) -> None:
        self.pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=history)
        self.middle = torch.empty(0)
        self.scale = 0.0

    def __len__(self) -> int:
        return len(self.pairs)

    def remember(self, change: Tensor, slope: Tensor) -> bool:
        """Takes in a pair, both of shape (p,). Where sᵀy ≤ 0, as on a loss that is not convex, it is not taken: False."""
        if not float(change.double() @ slope.double()) > 0:
            return False
        self.pairs.append((change, slope))
        changes, slopes = (torch.stack(part).double() for part in zip(*self.pairs, strict=True))  # (m, p) each
        between = changes @ slopes.T
        self.scale = float(between[-1, -1] / changes[-1].square().sum())
        lower = between.tril(-1)
        top = torch.cat([self.scale * changes @ changes.T, lower], 1)
        self.middle = torch.cat([top, torch.cat([lower.T, -between.diagonal().diag()], 1)])
        return True

    def times(self, vector: Tensor) -> Tensor:
        """B·vector, shape (p,), in the vector's dtype. There must be a pair."""
        changes, slopes = zip(*self.pairs, strict=True)
        factors = torch.stack([*(self.scale * change for change in changes), *slopes])  # (2m, p)
        inner = torch.linalg.solve(self.middle, factors.double() @ vector.double())
        product: Tensor = self.scale * vector - inner.to(vector.dtype) @ factors
        return product
