"""3×3 convolutions by Winograd's minimal filtering F(4×4, 3×3): a quarter of the multiplications, for frozen weights on a CPU.

Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", with their matrices for tiles of 6×6 → 4×4. The
transformed weights are made once, forwards and for the gradient to the input, which is again a 3×3 convolution. Rounding is
about 1e-5 of the largest value where a direct convolution has 1e-6.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE, STRIDE = 6, 4
AT_ONCE = 2**14  # tiles × channels worked on at once, so that a tile buffer (36 of these) stays in the cache
FEWEST_CHANNELS = 64  # below this, moving tiles costs more than the multiplications saved
CLEARLY = 0.85  # share of the direct convolution's time below which it is worth the rounding

_INPUT = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_WEIGHT = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def transformed(weight: Tensor) -> Tensor:
    """(k, c, 3, 3) → (36, c, k), computed in float64."""
    k, c = weight.shape[:2]
    tiles = torch.einsum("ai,kcij,bj->abck", _WEIGHT, weight.double(), _WEIGHT)
    return tiles.reshape(TILE * TILE, c, k).to(weight.dtype).contiguous()


def convolve(inputs: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """3×3 convolution, stride 1, padding 1: (n, c, h, w), transformed weights, bias (k,) → (n, k, h, w) in channels_last."""
    n, c, height, width = inputs.shape
    k = weights.shape[2]
    down, across = -(-height // STRIDE), -(-width // STRIDE)
    border = (0, 0, 1, 1 + across * STRIDE - width, 1, 1 + down * STRIDE - height)
    padded = F.pad(inputs.permute(0, 2, 3, 1), border)  # (n, h, w, c)
    image, row, column, channel = padded.stride()
    places = (row, column, image, row * STRIDE, column * STRIDE, channel)
    answer = torch.empty((n, k, down * STRIDE, across * STRIDE), dtype=inputs.dtype, memory_format=torch.channels_last)
    out = answer.permute(0, 2, 3, 1).view(n, down, STRIDE, across, STRIDE, k)
    at_once = max(1, AT_ONCE // (down * across * max(c, k)))
    for first in range(0, n, at_once):
        part = padded[first : first + at_once]
        shape = (TILE, TILE, len(part), down, across, c)
        tiles = part.as_strided(shape, places, part.storage_offset()).reshape(TILE, -1)
        tiles = torch.matmul(_INPUT, (_INPUT @ tiles).view(TILE, TILE, -1))
        product = torch.bmm(tiles.view(TILE * TILE, -1, c), weights).view(TILE, -1)
        product = torch.matmul(_OUTPUT, (_OUTPUT @ product).view(STRIDE, TILE, -1))
        shape = (STRIDE, STRIDE, len(part), down, across, k)
        torch.add(product.view(shape).permute(2, 3, 0, 4, 1, 5), bias, out=out[first : first + at_once])
    if (height, width) == answer.shape[2:]:
        return answer
    return answer[:, :, :height, :width].clone(memory_format=torch.channels_last)


class _Convolution(torch.autograd.Function):
    """Nothing is kept for the way back: the weights are frozen, so the gradient to the input needs no activations."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, forth: Tensor, back: Tensor, bias: Tensor) -> Tensor:
        ctx.back = back
        return convolve(inputs, forth, bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        return convolve(slopes[0], ctx.back, torch.zeros(())), None, None, None


class Winograd(nn.Module):
    """Stands in for a frozen 3×3 convolution of stride 1 and padding 1; gives no gradient to its weights."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.forth = transformed(layer.weight.detach())
        self.back = transformed(layer.weight.detach().flip(2, 3).transpose(0, 1))
        self.bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = _Convolution.apply(inputs, self.forth, self.back, self.bias)  # type: ignore[no-untyped-call]
        return answer


def with_winograd(model: nn.Module, sample: Tensor) -> nn.Module:
    """A copy of a frozen model with Winograd's method where it is clearly faster on this machine, by a timed trial of each
    layer's own shape; the model itself where it is nowhere. Decisions are remembered per shape, so that a subject and its
    controls are treated alike.
    """
    if sample.device.type != "cpu" or sample.dtype != torch.float32:
        return model
    shapes: dict[str, list[torch.Size]] = {}
    handles = [
        layer.register_forward_hook(
            lambda layer, args, out, name=name: shapes.setdefault(name, []).append(args[0].shape)
        )
        for name, layer in model.named_modules()
        if suits(layer)
    ]
    try:
        with torch.no_grad():
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
    chosen = [
        name for name, seen in shapes.items() if len(set(seen)) == 1 and _pays(model.get_submodule(name), seen[0])
    ]
    if not chosen:
        return model
    quick = copy.deepcopy(model)
    for name in chosen:
        quick.set_submodule(name, Winograd(quick.get_submodule(name)))
    return quick


def suits(layer: nn.Module) -> bool:
    """Whether this is a plain 3×3 convolution with enough channels."""
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or layer.groups != 1:
        return False
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    enough = min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS
    return enough and shape == ((3, 3), (1, 1), (1, 1), (1, 1))


_PAYS: dict[Any, bool] = {}


def _pays(layer: Any, shape: torch.Size) -> bool:
    key = (layer.out_channels, tuple(shape), torch.get_num_threads())
    if key not in _PAYS:
        inputs = torch.zeros(shape).contiguous(memory_format=torch.channels_last)
        quick = Winograd(layer)
        with torch.no_grad():
            seconds = [_seconds(lambda: quick(inputs)), _seconds(lambda: layer(inputs))]
        _PAYS[key] = seconds[0] < CLEARLY * seconds[1]
    return _PAYS[key]


def _seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Least processor time of a few runs, after one to warm up: other programs' load does not enter."""
    times = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times[1:])
