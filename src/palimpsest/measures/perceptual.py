"""Perceptual distances of images: through a classifier of the same data (perceptual), or the published LPIPS, where installed.

`perceptual` is not LPIPS. It has that distance's form (Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness
of Deep Features as a Perceptual Metric", 2018, Eq. 1) with another network and without its learnt weights, so its numbers compare
with each other only: one network, one kind of image. Images are floats in [0, 1], shape (n, c, h, w).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.measures.image import check_pair
from palimpsest.models.base import blocks
from palimpsest.rng import Rng
from palimpsest.task import evaluating

SOME = 32
"""Images whose activations are compared in float64 at once."""
LEAST = 16
"""Pixels a side that VGG's four poolings need."""


@torch.no_grad()
def perceptual(network: nn.Module, one: Tensor, other: Tensor, batch_size: int = 256) -> Float[Tensor, " n"]:
    """How differently a classifier of the same data sees two images, stage by stage; (n,), float64, on the CPU. Not LPIPS.

    Zhang et al. 2018, Eq. 1 with all weights one: a stage's activations (n, c, h, w) are scaled to norm 1 over channels at each
    place, their squared differences summed over channels and averaged over places; activations that are all zero stay so. The
    result is the mean over stages (the paper sums, over five layers of a network trained on ImageNet), in [0, 4], and in [0, 2]
    where no activation is negative. 0 for equal images, and exactly the same number with `one` and `other` swapped, where torch's
    kernels are deterministic. Two forward passes a batch; activations of one of them are in memory.

    network: images in [0, 1] → logits, `Normalised` or the user's own; the images go to its device and its float format. The
    stages are those of `models.base.blocks` (its own `blocks()`, else its children that hold parameters) with outputs of four
    axes. Where fewer than two children have one they are opened, so that a wrapped network is seen through. A stage that runs
    several times counts each time. batch_size: pairs at once. The network is in evaluation mode and takes no gradient;
    afterwards all modes are as before and no hook is left.

    Not guaranteed: that it agrees with people, or with LPIPS, on which images are alike; it sees what the classifier needed. A
    network that was trained on the deleted record but not on its decoys sees them differently, which no rank may rest on: train
    it on both or on neither, and use one for all controls and subjects. Differences of contrast alone can vanish in the norm,
    and a stage of one channel is compared by its sign only.

    Raises BadInput for a network without such a stage, images of different shapes, none, and images that are not floats, not
    finite or more than 0.001 outside [0, 1].
    """
    check_pair(one, other)
    if batch_size < 1:
        raise BadInput("batch_size", got=batch_size, expected="a whole number of at least 1")
    like = next(network.parameters(), one)
    with evaluating(network):
        stages = _stages(network, one[:1].to(like))
        parts = zip(torch.split(one, batch_size), torch.split(other, batch_size), strict=True)
        found = [_between(network, stages, first.to(like), second.to(like)).cpu() for first, second in parts]
    return torch.cat(found)


def lpips_available() -> bool:
    """Whether the package `lpips` can be imported, which it cannot beside a torchvision that does not fit the torch."""
    return _lpips() is not None


@torch.no_grad()
def lpips_distance(one: Tensor, other: Tensor, batch_size: int = 64) -> Float[Tensor, " n"]:
    """LPIPS with VGG-16 as its authors publish it (version 0.1), the one of the inversion paper; (n,), float64, on the CPU.

    Images of one or three channels and at least 16 × 16 pixels are scaled to [−1, 1] and go through the package `lpips` on the
    device that they are on. On its first use torchvision may fetch VGG's weights from the network. Small images are not
    enlarged, and a number for 32 × 32 pixels does not compare with one for larger images.

    Raises BadInput where the package cannot be imported, and for the images that `perceptual` refuses and smaller ones.
    """
    module = _lpips()
    if module is None:
        do = "pip install 'palimpsest-ml[lpips]', beside a torchvision that fits this torch; or leave it out"
        raise BadInput("LPIPS", got="no package `lpips` that can be imported", expected="one", do=do)
    check_pair(one, other)
    if one.shape[1] not in (1, 3) or min(one.shape[2:]) < LEAST:
        expected = f"one or three channels and sides of {LEAST} pixels or more"
        raise BadInput("images for LPIPS", got=f"shape {tuple(one.shape[1:])}", expected=expected)
    model = _vgg(module).to(one.device)
    parts = zip(torch.split(one, batch_size), torch.split(other, batch_size), strict=True)
    found = [model(2 * first.float() - 1, 2 * second.float() - 1).flatten() for first, second in parts]
    return torch.cat(found).double().cpu()


def _stages(network: nn.Module, image: Tensor) -> list[nn.Module]:
    spatial: set[nn.Module] = set()
    _run(network, network.modules(), image, lambda module, seen: spatial.add(module))
    level, stages = blocks(network), list[nn.Module]()
    while level:
        wide = [module for module in level if module in spatial]
        stages = wide or stages
        if len(stages) > 1:
            break
        level = [inner for module in wide or level for inner in blocks(module)]
    if not stages:
        got = f"{type(network).__name__}, none of whose stages has an output of four axes"
        do = "give a convolutional classifier, such as resnet18"
        raise BadInput("network of a perceptual distance", got=got, expected="a network of images", do=do)
    return list(dict.fromkeys(stages))


def _between(network: nn.Module, stages: list[nn.Module], first: Tensor, second: Tensor) -> Tensor:
    """Of one batch, shape (m,). Two runs of equal shape, so that no number depends on which image comes first."""
    kept: list[Tensor] = []
    apart: list[Tensor] = []
    _run(network, stages, first, lambda _, seen: kept.append(seen.clone()))
    _run(network, stages, second, lambda _, seen: apart.append(_apart(kept[len(apart)], seen)))
    return torch.stack(apart).mean(0)


def _run(
    network: nn.Module, modules: Iterable[nn.Module], images: Tensor, see: Callable[[nn.Module, Tensor], object]
) -> None:
    """Show the images to the network and each output of four axes of these modules to `see`, which must not keep it: the next
    module may work in place."""

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            see(module, output)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        network(images)


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """Of one stage, shape (m,), float64."""
    parts = zip(torch.split(one, SOME), torch.split(other, SOME), strict=True)
    gaps = [F.normalize(first.double(), dim=1) - F.normalize(second.double(), dim=1) for first, second in parts]
    return torch.cat([gap.square().sum(1).mean((1, 2)) for gap in gaps])


def _lpips() -> ModuleType | None:
    try:
        return importlib.import_module("lpips")
    except (ImportError, RuntimeError):  # a torchvision that does not fit the torch raises the latter
        return None


@lru_cache(maxsize=1)
def _vgg(module: ModuleType) -> nn.Module:
    """Built once: a rank needs many calls. Its first layers are drawn before their weights are read, from a stream of its own."""
    with Rng(0).child("lpips").ambient():
        network: nn.Module = module.LPIPS(net="vgg", verbose=False).eval()
    return network
