"""Winograd's method against the direct convolution, forth and back, for images that tiles do not fit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from palimpsest.attack import _winograd
from palimpsest.attack._winograd import Winograd, suits, with_winograd
from palimpsest.attack.folding import frozen
from palimpsest.attack.search import prepare


@pytest.fixture
def wide() -> nn.Module:
    """Two layers that suit, between others that do not."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 80, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(80, 64, 3, stride=2, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    return frozen(model)


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


def test_layers_change_only_where_the_trial_says_so(wide, monkeypatch):
    sample = torch.rand(4, 3, 12, 12)
    wanted = wide(sample)
    monkeypatch.setattr(_winograd, "_PAYS", {})
    monkeypatch.setattr(_winograd, "CLEARLY", float("inf"))
    quick = with_winograd(wide, sample)
    assert [name for name, layer in quick.named_children() if isinstance(layer, Winograd)] == ["2", "5"]
    assert not any(isinstance(layer, Winograd) for layer in wide.children())
    assert torch.allclose(quick(sample), wanted, atol=1e-4)
    monkeypatch.setattr(_winograd, "_PAYS", {})
    monkeypatch.setattr(_winograd, "CLEARLY", 0.0)
    assert with_winograd(wide, sample) is wide


def test_a_fixed_layout_keeps_every_convolution(wide, monkeypatch):
    monkeypatch.setattr(_winograd, "_PAYS", {})
    monkeypatch.setattr(_winograd, "CLEARLY", float("inf"))
    sample = torch.rand(4, 3, 12, 12)
    count = {
        layout: sum(isinstance(layer, Winograd) for layer in prepare(wide, sample, layout).model.modules())
        for layout in ("channels_last", "contiguous")
    }
    assert count == {"channels_last": 0, "contiguous": 0}


def test_float64_keeps_every_convolution(wide):
    model = wide.double()
    assert with_winograd(model, torch.rand(2, 3, 8, 8, dtype=torch.float64)) is model
