"""Winograd's method against the direct convolution, forth and back, for images that tiles do not fit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from palimpsest.attack._winograd import Winograd, suits
from palimpsest.attack.folding import frozen


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (32, 32), (9, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_convolution_forth_and_back(size, bias):
    torch.manual_seed(1)
    layer = frozen(nn.Conv2d(5, 7, 3, padding=1, bias=bias))
    inputs = torch.randn(11, 5, *size)
    exact, point = inputs.double().requires_grad_(), inputs.clone().requires_grad_()
    wanted = F.conv2d(exact, layer.weight.double(), None if layer.bias is None else layer.bias.double(), padding=1)
    got = Winograd(layer)(point)
    assert got.shape == wanted.shape
    assert torch.allclose(got.double(), wanted, atol=1e-4 * float(wanted.detach().abs().max()))
    slope = torch.randn_like(got)
    back, slow = torch.autograd.grad(got, point, slope)[0], torch.autograd.grad(wanted, exact, slope.double())[0]
    assert torch.allclose(back.double(), slow, atol=1e-4 * float(slow.abs().max()))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 5, padding=2),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(8, 64, 3, padding=1),
        nn.Linear(64, 64),
    ],
)
def test_other_layers_are_left_alone(layer):
    assert not suits(layer)
    assert suits(nn.Conv2d(64, 64, 3, padding=1))
