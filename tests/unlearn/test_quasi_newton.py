"""The compact form against the recursion that it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from palimpsest.unlearn._quasi_newton import QuasiHessian


def recursion(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """BFGS updates of σI in float64, σ from the last pair."""
    last = pairs[-1]
    b = torch.eye(len(last[0]), dtype=torch.float64) * (last[0] @ last[1]) / (last[0] @ last[0])
    for s, y in pairs:
        image = b @ s
        b = b - torch.outer(image, image) / (s @ image) + torch.outer(y, y) / (s @ y)
    return b


@pytest.mark.parametrize("history", [1, 2, 5])
def test_it_is_the_bfgs_recursion_over_the_last_pairs(history: int) -> None:
    draw = torch.Generator().manual_seed(history)
    root = torch.randn(9, 9, generator=draw, dtype=torch.float64)
    hessian = root @ root.T / 9 + 0.1 * torch.eye(9, dtype=torch.float64)
    pairs = [(s, hessian @ s) for s in torch.randn(4, 9, generator=draw, dtype=torch.float64)]
    found = QuasiHessian(history)
    assert len(found) == 0
    assert all(found.remember(*pair) for pair in pairs)
    dense = recursion(pairs[-history:])
    image = torch.stack([found.times(axis) for axis in torch.eye(9, dtype=torch.float64)], 1)
    torch.testing.assert_close(image, dense, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.times(pairs[-1][0]), pairs[-1][1])
    assert float(torch.linalg.eigvalsh(image).min()) > 0


def test_pairs_without_positive_curvature_are_not_taken() -> None:
    found = QuasiHessian(2)
    s = torch.tensor([1.0, 2.0])
    assert not found.remember(s, -s)
    assert not found.remember(s, torch.zeros(2))
    assert not found.remember(s, torch.full((2,), float("nan")))
    assert len(found) == 0
    assert found.remember(s, 3 * s)
    torch.testing.assert_close(found.times(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 3.0]))


def test_nearly_parallel_pairs() -> None:
    """Changes of neighbouring steps point almost the same way."""
    s = torch.randn(50, generator=torch.Generator().manual_seed(0))
    found = QuasiHessian(2)
    for change in (s, s * 1.001 + 1e-6):
        found.remember(change, 0.5 * change)
    torch.testing.assert_close(found.times(s), 0.5 * s, rtol=1e-3, atol=1e-4)
