"""Packed convolutions answer, and lead back, as the usual ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from palimpsest.attack import _packed
from palimpsest.attack._packed import Packed, available, suits

pytestmark = pytest.mark.skipif(not available(), reason="this torch has no packed convolutions")


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0), (5, 2), (3, 0)])
@pytest.mark.parametrize("channels", [(3, 8), (16, 16), (64, 32)])
@pytest.mark.parametrize("batch", [8, 3])
def test_alike_forth_and_back(kernel, padding, channels, batch) -> None:
    draw = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(*channels, kernel, padding=padding).requires_grad_(False).to(memory_format=torch.channels_last)
    inputs = torch.randn(8, channels[0], 9, 9, generator=draw).contiguous(memory_format=torch.channels_last)
    packed, some = Packed(layer, inputs.shape), inputs[:batch]
    found = []
    for way in (layer, packed):
        point = some.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        answer = way(point)
        found.append((answer.detach(), torch.autograd.grad(answer.square().sum(), point)[0]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_suits(monkeypatch) -> None:
    assert not suits(nn.Conv2d(3, 4, 3, padding=1))
    monkeypatch.setattr(_packed, "FEWEST_WEIGHTS", 3 * 4)
    assert suits(nn.Conv2d(3, 4, 3, padding=1))
    for other in (nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(3, 4, 3, dilation=2)):
        assert not suits(other)
    for other in (nn.Conv2d(3, 4, 1, padding=1), nn.Conv2d(3, 4, 3, padding="same"), nn.Linear(2, 2)):
        assert not suits(other)
