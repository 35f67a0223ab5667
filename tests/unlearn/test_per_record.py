"""Gradients per record: the three ways agree, and the fast one stands back where it would be wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.models.resnet18 import ResNet18
from palimpsest.models.resnet50 import ResNet50
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn import _per_record
from palimpsest.unlearn import curvature as module
from palimpsest.unlearn._per_record import Dense, Gradients, Product, by_layers
from palimpsest.unlearn.curvature import Curvature


def matrix(gradients: Gradients) -> Tensor:
    return torch.stack([gradients.row(index) for index in range(len(gradients))])


class Mixed(nn.Module):
    """Strides, paddings, dilation, an in-place activation, batch norm of vectors, a linear layer on every position."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
        self.plain = nn.BatchNorm2d(3, affine=False)
        self.act = nn.ReLU(inplace=True)
        self.positions = nn.Linear(3, 4, bias=False)
        self.norm = nn.BatchNorm1d(4 * 4 * 6)
        self.head = nn.Linear(4 * 4 * 6, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.plain(self.conv(x)))
        y = self.positions(y.flatten(2).transpose(1, 2)).flatten(1)
        return self.head(self.norm(y))


class Reused(nn.Module):
    """One layer, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.head = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.twice(self.twice(self.first(x.flatten(1))).tanh()))


class Borrowed(nn.Module):
    """Weights used outside of their layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x.flatten(1)).tanh()
        return self.head(y + F.linear(F.linear(y, self.first.weight.T), self.first.weight).tanh())


class Turned(nn.Module):
    """Positions first, records second: eight positions of eight features, for a batch of any number of records."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, 4), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x.flatten(1).unflatten(1, (8, 8)).transpose(0, 1)).tanh()
        return self.head(y.transpose(0, 1).flatten(1))


class Loose(nn.Module):
    """A parameter of its own, and a spare one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.spare, self.head = nn.Parameter(torch.ones(64)), nn.Linear(2, 2), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1) * self.scale)


class Grouped(nn.Module):
    """A grouped convolution and a group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.GroupNorm(2, 4), nn.Flatten())
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def ready(made, task) -> nn.Module:
    """In float64 and evaluation mode, the running statistics moved off their start."""
    with Rng(0).ambient():
        model = made.build(task, Rng(0)) if hasattr(made, "build") else made()
        model = model.double()
        for _ in range(3):
            model(torch.rand(16, 1, 8, 8, dtype=torch.float64))
    return model.eval()


FAST = [Linear(), Mlp(width=8), ConvNet(width=2), ResNet18(width=2), ResNet50(width=1), Mixed]
SLOW = [Reused, Borrowed, Turned, Loose, Grouped]


@pytest.mark.parametrize("made", [*FAST, *SLOW], ids=lambda made: getattr(made, "__name__", type(made).__name__))
@pytest.mark.parametrize(("batch", "grouped"), [(5, 1), (8, 9999), (64, 64)])
def test_all_ways_agree(made, batch, grouped, digits_task, digits_few, monkeypatch) -> None:
    """Batches of eight included, where `Turned` has as many positions as records; convolutions by groups, by patches and both."""
    monkeypatch.setattr(_per_record, "GROUPED_PLACES", grouped)
    monkeypatch.setattr(module, "LAYER_RECORDS", batch)
    monkeypatch.setattr(module, "VMAP_RECORDS", batch)
    model, records = ready(made, digits_task), digits_few.take(list(range(0, 192, 12)))
    curvature = Curvature(model, digits_task, Meter())
    before = [value.clone() for value in model.state_dict().values()]
    fast = matrix(curvature.gradients(records))
    loop = matrix(curvature.gradients(records, vectorised=False))
    torch.testing.assert_close(fast, loop)
    torch.testing.assert_close(fast.sum(0), curvature.gradient_sum(records))
    layers = by_layers(curvature.losses, curvature.parameters, curvature._counted(records, batch), len(records))
    assert (layers is not None) == (made in FAST)
    assert all(torch.equal(old, new) for old, new in zip(before, model.state_dict().values(), strict=True))
    assert not any(inner._forward_hooks for inner in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("places", [1, 3])
def test_blocks_are_the_matrix(places, monkeypatch) -> None:
    monkeypatch.setattr(_per_record, "BLOCK_ENTRIES", 1600)
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn(200, size, places, generator=draw, dtype=torch.float64) for size in (3, 4))
    rows = torch.randn(200, 5, generator=draw, dtype=torch.float64)
    gradients = Gradients((Product(left, right), Dense(rows)), torch.zeros(200, dtype=torch.float64))
    whole = torch.cat([torch.einsum("nal,nbl->nab", left, right).flatten(1), rows], 1)
    vector, weights = (torch.randn(size, generator=draw, dtype=torch.float64) for size in (17, 200))
    torch.testing.assert_close(matrix(gradients), whole)
    torch.testing.assert_close(gradients.gram().tril(), (whole @ whole.T).tril())
    torch.testing.assert_close(gradients.times(vector), whole @ vector)
    torch.testing.assert_close(gradients.transposed(weights), whole.T @ weights)


def test_a_model_that_vmap_cannot_take_is_refused_with_the_way_out(digits_task, digits_few: Examples) -> None:
    class Branching(Loose):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y * 2 if float(y.detach().sum()) > 0 else y

    curvature = Curvature(Branching().eval(), digits_task, Meter())
    with pytest.raises(BadInput, match="vectorised=false"):
        curvature.gradients(digits_few)
    assert len(curvature.gradients(digits_few, vectorised=False)) == 200
