"""The way each frozen convolution of a model takes on a CPU: the usual one, with packed weights, or Winograd's."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from palimpsest.attack import _packed, _winograd
from palimpsest.attack._packed import Packed
from palimpsest.attack._winograd import Winograd

CLEARLY = 0.85  # share of the direct convolution's time below which Winograd's method is worth its rounding


def quickened(model: nn.Module, sample: Tensor) -> nn.Module:
    """A copy of a frozen model in channels_last whose wide convolutions take the quickest way for records such as `sample`,
    or the model itself where there are none, or this is no float32 on a CPU.

    Large weights are packed. Winograd's method is used where a timed trial of the layer's own shape says that it is clearly
    faster on this machine; decisions are remembered per shape, so that a subject and its controls are treated alike.
    """
    if sample.device.type != "cpu" or sample.dtype != torch.float32:
        return model
    ways = {name: _quickest(model.get_submodule(name), shape) for name, shape in _shapes(model, sample).items()}
    if all(way is model.get_submodule(name) for name, way in ways.items()):
        return model
    quick = copy.deepcopy(model)
    for name, way in ways.items():
        quick.set_submodule(name, way)
    return quick


def _shapes(model: nn.Module, sample: Tensor) -> dict[str, torch.Size]:
    """The shape of what each suitable layer takes, by the layer's name; those that see several are left out."""
    seen: dict[str, set[torch.Size]] = {}
    handles = [
        layer.register_forward_hook(lambda layer, args, out, name=name: seen.setdefault(name, set()).add(args[0].shape))
        for name, layer in model.named_modules()
        if _winograd.suits(layer) or _packed.suits(layer)
    ]
    try:
        with torch.no_grad():
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
    return {name: shapes.pop() for name, shapes in seen.items() if len(shapes) == 1}


def _quickest(layer: Any, shape: torch.Size) -> nn.Module:
    direct: nn.Module = Packed(layer, shape) if _packed.suits(layer) else layer
    return Winograd(layer) if _winograd.suits(layer) and _pays(layer, direct, shape) else direct


_PAYS: dict[Any, bool] = {}


def _pays(layer: Any, direct: nn.Module, shape: torch.Size) -> bool:
    """Whether Winograd's method is clearly faster in a pass forth and back, as a search does it; asked once for each shape."""
    key = (layer.out_channels, tuple(shape), torch.get_num_threads())
    if key not in _PAYS:
        draw = torch.Generator().manual_seed(0)
        inputs = torch.rand(shape, generator=draw).contiguous(memory_format=torch.channels_last)
        usual, quick = _least((direct, Winograd(layer)), inputs)
        _PAYS[key] = quick < CLEARLY * usual
    return _PAYS[key]


def _least(layers: Sequence[nn.Module], inputs: Tensor, rounds: int = 7) -> list[float]:
    """Each layer's least processor time of several passes in turn, after one to warm up: other programs' load does not enter,
    nor does what slows the machine for a moment."""
    times: list[list[float]] = [[] for _ in layers]
    for _ in range(rounds + 1):
        for layer, seconds in zip(layers, times, strict=True):
            begin = time.process_time()
            point = inputs.detach().requires_grad_()
            answer = layer(point)
            torch.autograd.grad(answer, point, answer.detach())
            seconds.append(time.process_time() - begin)
    return [min(seconds[1:]) for seconds in times]
