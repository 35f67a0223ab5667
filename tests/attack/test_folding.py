"""Folding batch norm must not change what a model answers, whatever the model looks like."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from palimpsest.attack.folding import InPlaceReLU, folded
from palimpsest.audit.controls import Shifted
from palimpsest.models.convnet import ConvNet
from palimpsest.models.mlp import Mlp
from palimpsest.models.resnet18 import ResNet18
from palimpsest.models.resnet50 import ResNet50
from palimpsest.rng import Rng
from palimpsest.task import Classification


def trained(model: nn.Module, *shape: int, steps: int = 4) -> nn.Module:
    """A few steps in training mode, so that batch norm has statistics and an affine map of its own."""
    with Rng(0).ambient():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(torch.rand(16, *shape)), torch.randint(10, (16,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in model.modules())


def answers(model: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    point = inputs.clone().requires_grad_()
    logits = model(point)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), point)[0]


def same(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """Compares answers in float32 and, where a tie in a pooling cannot turn a rounding into another path, gradients in
    float64; returns the folded float32 copy."""
    for kind, near in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        plain = copy.deepcopy(model).eval().to(kind)
        short = folded(copy.deepcopy(model).to(kind), inputs[:4].to(kind))
        pairs = zip(answers(plain, inputs.to(kind)), answers(short, inputs.to(kind)), strict=True)
        for one, other in list(pairs)[: 2 if kind is torch.float64 else 1]:
            assert torch.allclose(one, other, rtol=near, atol=near * float(one.abs().max()))
    return short


@pytest.mark.parametrize("factory", [ConvNet(4), ResNet18(4), ResNet50(2)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_our_models_lose_every_batch_norm_and_answer_alike(factory, wrapped):
    edges = (torch.zeros(()), torch.ones(()))
    task = Classification(10, (3, 16, 16), (0.5,) * 3, (0.25,) * 3, edges)
    model = trained(factory.build(task, Rng(1)), 3, 16, 16)
    model = Shifted(model, torch.arange(10.0)) if wrapped else model
    before = copy.deepcopy(model.state_dict())
    inputs = torch.rand(6, 3, 16, 16)
    short = folded(model, inputs[:4])
    assert norms(model) > 0
    assert norms(short) == 0
    assert not any(p.requires_grad for p in short.parameters())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not short.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    same(model, inputs)


def test_models_without_batch_norm_stay_as_they_are():
    edges = (torch.zeros(()), torch.ones(()))
    model = Mlp(width=8).build(Classification(10, (6,), (0.5,) * 6, (0.25,) * 6, edges), Rng(1))
    same(model, torch.rand(6, 6))


class Peculiar(nn.Module):
    """A convolution read twice, one used twice, one with a weight norm; a branch on the data; a linear layer with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.read_twice, self.norm_a = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.used_twice, self.norm_b = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.weight_normed, self.norm_c = weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)
        self.plain, self.norm_d = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)
        self.relu, self.read_again, self.slope_not_own = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.head, self.norm_e = nn.Linear(3, 10), nn.BatchNorm1d(10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.read_twice(x)
        x = self.norm_a(x) + x
        x = self.norm_b(self.used_twice(x)) + self.used_twice(x)
        x = self.relu(self.norm_c(self.weight_normed(x)))
        x = self.norm_d(self.plain(x))
        x = self.slope_not_own(x + self.read_again(x))
        x = x + x.flip(3)
        if x.mean() > 1e9:
            x = x * 2
        return self.norm_e(self.head(x.mean((2, 3))))


def test_only_what_is_exact_is_folded():
    model = trained(Peculiar(), 1, 6, 6)
    short = same(model, torch.rand(5, 1, 6, 6))
    kinds = {name: type(module) for name, module in short.named_modules()}
    assert [name for name, kind in kinds.items() if kind is nn.Identity] == ["norm_d", "norm_e"]
    assert [name for name, kind in kinds.items() if kind is InPlaceReLU] == ["relu"]
    assert not short.read_again.inplace
    assert short.slope_not_own.inplace


class Noisy(nn.Module):
    """Adds noise to its answer: no folded copy can be shown to answer alike."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 10), nn.BatchNorm1d(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + torch.randn(len(x), 10)


def test_a_copy_that_does_not_answer_alike_is_refused():
    assert norms(folded(trained(Noisy(), 4), torch.rand(5, 4))) == 1
