"""Narrow residual networks, whose strided shortcuts go around a kernel of torch that writes where it must not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from palimpsest.models._residual import NARROW, ResNet, conv_bn


@pytest.mark.parametrize("before", [2, 6, NARROW])
def test_a_shortcut_is_a_strided_convolution(before: int) -> None:
    torch.manual_seed(0)
    shortcut = conv_bn(before, 2 * before, 1, 2)
    convolution, norm = shortcut[-2], shortcut[-1]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eval()
    images = torch.randn(46, before, 8, 8, requires_grad=True)
    expected = norm(F.conv2d(images, convolution.weight, stride=2))
    wanted = torch.autograd.grad(expected.square().sum(), [images, convolution.weight])
    shown = images.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    answer = shortcut.to(memory_format=torch.channels_last)(shown)  # type: ignore[call-overload]
    torch.testing.assert_close(answer, expected)
    for one, other in zip(torch.autograd.grad(answer.square().sum(), [shown, convolution.weight]), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_weights_are_named_alike_whatever_the_width() -> None:
    narrow, wide = (ResNet(1, 10, width, (2, 2, 2, 2), bottleneck=False).state_dict() for width in (2, NARROW))
    assert list(narrow) == list(wide)


def test_a_narrow_network_learns_channels_last() -> None:
    """Without the way around, the process dies here."""
    torch.manual_seed(0)
    network = ResNet(1, 10, 2, (2, 2, 2, 2), bottleneck=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    for count in (128, 46) * 15:
        optimizer.zero_grad()
        F.cross_entropy(network(torch.rand(count, 1, 8, 8)), torch.arange(count) % 10).backward()
        optimizer.step()
    assert all(bool(parameter.isfinite().all()) for parameter in network.parameters())
