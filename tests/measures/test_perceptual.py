"""The perceptual distance by hand and beside a slow reference, what it leaves behind, and the door to LPIPS."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.measures.images import BAD, f64, noise
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.measures import perceptual as module
from palimpsest.measures.perceptual import perceptual
from palimpsest.models.base import Normalised
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.models.resnet18 import ResNet18
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Array

MEAN, STD = (0.5, 0.25, 0.375), (0.25, 0.5, 0.125)


class Looks(nn.Module):
    """Stages as given, and a head that no distance sees."""

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def blocks(self) -> list[nn.Module]:
        return list(self.stages)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))


class Hidden(nn.Module):
    """A network inside another one, whose children hold no stage of their own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits


def factory(name: str) -> nn.Module:
    task = Classification(
        classes=4, shape=(3, 8, 8), mean=MEAN, std=STD, domain=(torch.zeros(3, 8, 8), torch.ones(3, 8, 8))
    )
    made = {"convnet": ConvNet(width=3), "resnet18": ResNet18(width=2), "mlp": Mlp(width=5), "linear": Linear()}
    return made[name].build(task, Rng(0).child(name))


def small(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Two convolutions with batch norm and ReLU, declared as blocks, behind a normalisation; statistics are not trivial."""
    torch.manual_seed(1)
    stages = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1, stride=s), nn.BatchNorm2d(b), nn.ReLU())
        for a, b, s in ((3, 4, 1), (4, 6, 2))
    ]
    for stage in stages:
        for name in ("running_mean", "running_var"):
            getattr(stage[1], name).uniform_(0.1, 0.9)
    return Normalised(Looks(*stages), MEAN, STD, 3).to(dtype)


def slow(network: nn.Module, one: Array, other: Array) -> float:
    """Of one pair and `small`, one place at a time: convolution, normalisation and distance written out."""

    def seen(image: Array) -> list[Array]:
        x = (image - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
        found = []
        for stage, stride in zip(network.network.stages, (1, 2), strict=True):
            weight, bias = (p.detach().double().numpy() for p in (stage[0].weight, stage[0].bias))
            mean, var, gamma, beta = (
                getattr(stage[1], name).detach().double().numpy()
                for name in ("running_mean", "running_var", "weight", "bias")
            )
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            rows, columns = range(0, x.shape[1], stride), range(0, x.shape[2], stride)
            y = np.zeros((len(weight), len(rows), len(columns)))
            for channel in range(len(weight)):
                for i, row in enumerate(rows):
                    for j, col in enumerate(columns):
                        window = padded[:, row : row + 3, col : col + 3]
                        y[channel, i, j] = (window * weight[channel]).sum() + bias[channel]
                y[channel] = (y[channel] - mean[channel]) / math.sqrt(var[channel] + 1e-5)
                y[channel] = np.maximum(y[channel] * gamma[channel] + beta[channel], 0)
            found.append(y)
            x = y
        return found

    stages = []
    for first, second in zip(seen(one), seen(other), strict=True):
        places = []
        for i in range(first.shape[1]):
            for j in range(first.shape[2]):
                a, b = first[:, i, j], second[:, i, j]
                a, b = (v / math.sqrt((v * v).sum()) if (v * v).sum() > 0 else v for v in (a, b))
                places.append(((a - b) ** 2).sum())
        stages.append(sum(places) / len(places))
    return sum(stages) / len(stages)


def test_it_is_that_of_a_slow_loop_in_double_precision() -> None:
    network, one, other = small(), noise(3, 3, 6, 5), noise(3, 3, 6, 5, seed=1)
    expected = [slow(network, a.double().numpy(), b.double().numpy()) for a, b in zip(one, other, strict=True)]
    found = perceptual(network, one, other)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, f64(*expected), rtol=1e-10, atol=0)
    torch.testing.assert_close(perceptual(small(torch.float32), one.double(), other), found, rtol=1e-4, atol=0)


def test_by_hand() -> None:
    """An identity of two channels: norm 1 makes (1, 0) and (0, 1) √2 apart, (0.2, 0.2) and (0.8, 0.8) the same, and
    (3, 1) and (1, 3) 0.8 apart in square; of four places one differs at a time. In double precision, though images are not."""
    network = Looks(nn.Identity())
    one = torch.zeros(4, 2, 2, 2)
    other = one.clone()
    pairs = [((1.0, 0.0), (0.0, 1.0)), ((0.2, 0.2), (0.8, 0.8)), ((0.75, 0.25), (0.25, 0.75)), ((0.0, 0.0), (0.3, 0.0))]
    for index, (first, second) in enumerate(pairs):
        one[index, :, 1, 0], other[index, :, 1, 0] = torch.tensor(first), torch.tensor(second)
    torch.testing.assert_close(perceptual(network, one, other), f64(0.5, 0.0, 0.2, 0.25), atol=1e-14, rtol=0)


def test_stages_count_alike_whatever_their_size() -> None:
    """Four places of which one differs by 2, then one place at which the poolings differ: (3/4, 1/4) against (1/2, 1/2)."""
    one = torch.tensor([[1.0, 0.0]]).T.repeat(1, 4).view(1, 2, 2, 2)
    one[0, :, 0, 0] = torch.tensor([0.0, 1.0])
    other = one.clone()
    other[0, :, 0, 1] = torch.tensor([0.0, 1.0])
    pooled = 2 - 2 * (0.75 * 0.5 + 0.25 * 0.5) / math.sqrt((0.75**2 + 0.25**2) * 0.5)
    found = perceptual(Looks(nn.Identity(), nn.AvgPool2d(2)), one, other)
    assert float(found) == pytest.approx((0.5 + pooled) / 2, rel=1e-6)


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_equal_images_are_no_distance_apart_and_the_order_does_not_matter(name: str) -> None:
    network, one, other = factory(name), noise(5, 3, 8, 8), noise(5, 3, 8, 8, seed=1)
    other[2] = one[2]
    found = perceptual(network, one, other)
    assert perceptual(network, one, one).equal(torch.zeros(5, dtype=torch.float64))
    assert found[2] == 0
    assert ((found > 1e-3) == torch.tensor([True, True, False, True, True])).all()
    assert (found <= 2).all()  # no stage of these has a negative activation
    assert perceptual(network, other, one).equal(found)
    assert perceptual(network, one, other).equal(found)


def test_pairs_are_told_apart_however_many_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    network, one, other = small(), noise(5, 3, 8, 8), noise(5, 3, 8, 8, seed=1)
    found = perceptual(network, one, other)
    assert found.unique().numel() == 5
    for size in (1, 2, 5):
        torch.testing.assert_close(perceptual(network, one, other, batch_size=size), found, rtol=1e-12, atol=0)
    monkeypatch.setattr(module, "SOME", 2)
    assert perceptual(network, one, other).equal(found)


def test_no_more_than_a_batch_is_shown_at_once() -> None:
    sizes, network = [], small()
    network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    perceptual(network, noise(5, 3, 6, 6), noise(5, 3, 6, 6, seed=1), batch_size=2)
    assert max(sizes) == 2


def shown(network: nn.Module, images: Tensor) -> list[str]:
    """Names of the stages that a network is seen through."""
    names = {inner: name for name, inner in network.named_modules()}
    with torch.no_grad():
        return [names[stage] for stage in module._stages(network.eval(), images)]


def test_stages_are_the_blocks_with_an_image_for_an_output() -> None:
    images = noise(1, 3, 8, 8)
    assert shown(factory("convnet"), images) == [f"network.{index}" for index in (0, 1, 2, 3, 4, 6, 7)]
    expected = ["network.stem", *(f"network.stages.{stage}.{block}" for stage in range(4) for block in range(2))]
    assert shown(factory("resnet18"), images) == expected


def test_a_network_inside_another_is_seen_through() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    logits = nn.Sequential(inner, nn.Flatten(), nn.Linear(80, 2))
    assert shown(logits, noise(1, 3, 8, 8)) == ["0.0", "0.2"]
    assert shown(Hidden(logits), noise(1, 3, 8, 8)) == ["inner.0.0", "inner.0.2"]
    one, other = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    assert perceptual(Hidden(Hidden(logits)), one, other).equal(perceptual(logits, one, other))


def test_one_convolution_is_a_stage() -> None:
    alone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    assert shown(alone, noise(1, 3, 8, 8)) == ["0"]


def test_a_stage_that_cannot_be_opened_stays_one() -> None:
    class Drawing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(1)).view(-1, 2, 2, 2)

    network = nn.Sequential(Hidden(Drawing(48, 8)), nn.Flatten(), nn.Linear(8, 2))
    assert shown(network, noise(1, 3, 4, 4)) == ["0.inner"]
    network = nn.Sequential(
        Hidden(nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Unflatten(1, (2, 2, 2)))), nn.Flatten()
    )
    assert shown(network, noise(1, 3, 4, 4)) == ["0.inner"]


@pytest.mark.parametrize("inplace", [False, True])
def test_what_a_later_module_does_in_place_is_not_seen(inplace: bool) -> None:
    """The stages are convolutions before their ReLU, which overwrites the first image's activations if they are not copied."""
    torch.manual_seed(2)
    convolutions = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    network = nn.Sequential(convolutions[0], nn.ReLU(inplace), convolutions[1], nn.ReLU(inplace), nn.Flatten())
    one, other = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    with torch.no_grad():
        pairs = [(convolutions[0](one), convolutions[0](other))]
        pairs.append((convolutions[1](pairs[0][0].relu()), convolutions[1](pairs[0][1].relu())))
        gaps = [F.normalize(a.double()) - F.normalize(b.double()) for a, b in pairs]
    expected = torch.stack([gap.square().sum(1).mean((1, 2)) for gap in gaps]).mean(0)
    torch.testing.assert_close(perceptual(network, one, other), expected, rtol=1e-6, atol=0)
    assert perceptual(network, one, one).equal(f64(0, 0))


def test_a_stage_that_runs_twice_counts_twice() -> None:
    class Twice(Looks):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.stages[0](x))

    one, other = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    halving = nn.AvgPool2d(2)
    expected = perceptual(Looks(halving, nn.AvgPool2d(2)), one, other)
    torch.testing.assert_close(perceptual(Twice(halving), one, other), expected)
    assert (perceptual(Looks(halving), one, other) != expected).all()


def test_a_stage_that_is_named_twice_counts_as_often_as_it_runs() -> None:
    one, other = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    halving, smaller = nn.AvgPool2d(2), nn.AvgPool2d((1, 2))
    expected = perceptual(Looks(halving, nn.AvgPool2d(2), smaller), one, other)
    torch.testing.assert_close(perceptual(Looks(halving, halving, smaller), one, other), expected)


# what it leaves behind


def hooks(network: nn.Module) -> int:
    return sum(len(inner._forward_hooks) for inner in network.modules())


class Failing(nn.Module):
    """Fails on its second image: while a batch is shown, after the look for stages."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("not today")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_modes_buffers_gradients_and_hooks_are_as_before(fails: bool) -> None:
    network = small(torch.float32)
    looks = network.network
    if fails:
        looks.stages.append(Failing())
    network.train()
    looks.stages[1].eval()
    looks.stages[0][0].weight.requires_grad_(False)
    own = looks.stages[0].register_forward_hook(lambda *_: None)
    modes = [inner.training for inner in network.modules()]
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    one, other = noise(4, 3, 6, 6).requires_grad_(), noise(4, 3, 6, 6, seed=1)
    if fails:
        with pytest.raises(RuntimeError, match="not today"):
            perceptual(network, one, other)
    else:
        assert not perceptual(network, one, other).requires_grad
    assert hooks(network) == 1
    own.remove()
    assert [inner.training for inner in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted
    assert all(value.equal(state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert one.grad is None


def test_the_mode_that_the_network_is_in_changes_nothing() -> None:
    network, one, other = small(), noise(4, 3, 6, 6), noise(4, 3, 6, 6, seed=1)
    assert perceptual(network.train(), one, other).equal(perceptual(network.eval(), one, other))


# refusals


@pytest.mark.parametrize("name", ["mlp", "linear"])
def test_a_network_without_stages_is_refused(name: str) -> None:
    network = factory(name)
    with pytest.raises(BadInput, match=r"Normalised, none of whose stages.*resnet18"):
        perceptual(network, noise(2, 3, 8, 8), noise(2, 3, 8, 8))
    assert hooks(network) == 0


@pytest.mark.parametrize(("one", "other", "told"), BAD)
def test_images_that_cannot_be_compared_are_refused(one: Tensor, other: Tensor, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        perceptual(small(), one, other)


def test_no_batch_is_refused() -> None:
    with pytest.raises(BadInput, match="batch_size: got 0"):
        perceptual(small(), noise(1, 3, 4, 4), noise(1, 3, 4, 4), batch_size=0)


def test_float_noise_around_the_range_passes() -> None:
    one = noise(1, 3, 6, 6)
    assert float(perceptual(small(), one, one + 3e-8)) == pytest.approx(0, abs=1e-9)
