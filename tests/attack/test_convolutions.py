"""Which convolutions of a model are replaced, and by what; the model answers alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from palimpsest.attack import _convolutions, _packed
from palimpsest.attack._convolutions import quickened
from palimpsest.attack._packed import Packed
from palimpsest.attack._winograd import Winograd
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


def test_layers_change_only_where_the_trial_says_so(wide, monkeypatch):
    sample = torch.rand(4, 3, 12, 12)
    wanted = wide(sample)
    monkeypatch.setattr(_convolutions, "_PAYS", {})
    monkeypatch.setattr(_convolutions, "CLEARLY", float("inf"))
    quick = quickened(wide, sample)
    assert [name for name, layer in quick.named_children() if isinstance(layer, Winograd)] == ["2", "5"]
    assert not any(isinstance(layer, Winograd) for layer in wide.children())
    assert torch.allclose(quick(sample), wanted, atol=1e-4)
    monkeypatch.setattr(_convolutions, "_PAYS", {})
    monkeypatch.setattr(_convolutions, "CLEARLY", 0.0)
    assert quickened(wide, sample) is wide


def test_a_fixed_layout_keeps_every_convolution(wide, monkeypatch):
    monkeypatch.setattr(_convolutions, "_PAYS", {})
    monkeypatch.setattr(_convolutions, "CLEARLY", float("inf"))
    monkeypatch.setattr(_packed, "FEWEST_WEIGHTS", 1)
    sample = torch.rand(4, 3, 12, 12)
    count = {
        layout: sum(isinstance(layer, (Winograd, Packed)) for layer in prepare(wide, sample, layout).model.modules())
        for layout in ("channels_last", "contiguous")
    }
    assert count == {"channels_last": 0, "contiguous": 0}


def test_float64_keeps_every_convolution(wide):
    model = wide.double()
    assert quickened(model, torch.rand(2, 3, 8, 8, dtype=torch.float64)) is model


def test_large_weights_are_packed_unless_winograd_pays(wide, monkeypatch):
    sample = torch.rand(4, 3, 12, 12)
    wide = wide.to(memory_format=torch.channels_last)
    wanted = wide(sample)
    monkeypatch.setattr(_packed, "FEWEST_WEIGHTS", 64 * 80 * 9)
    for clearly, kinds in ((0.0, [Packed, nn.Conv2d]), (float("inf"), [Winograd, Winograd])):
        monkeypatch.setattr(_convolutions, "_PAYS", {})
        monkeypatch.setattr(_convolutions, "CLEARLY", clearly)
        quick = quickened(wide, sample)
        assert [type(quick.get_submodule(name)) for name in ("2", "5")] == kinds
        assert type(quick.get_submodule("4")) is nn.Conv2d  # stride 2
        assert torch.allclose(quick(sample), wanted, atol=1e-4)


def test_a_layer_that_sees_two_shapes_is_left_alone(wide, monkeypatch):
    class Twice(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, inputs):
            return self.layer(self.layer(inputs)[:, :, ::2]).mean((2, 3))

    monkeypatch.setattr(_packed, "FEWEST_WEIGHTS", 1)
    model = frozen(Twice(nn.Conv2d(4, 4, 3, padding=1)))
    assert quickened(model, torch.rand(2, 4, 8, 8)) is model
