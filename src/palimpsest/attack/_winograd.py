"""3×3 convolutions by Winograd's minimal filtering F(4×4, 3×3): a quarter of the multiplications, for frozen weights on a CPU.

Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", with their matrices for tiles of 6×6 → 4×4. The
transformed weights are made once, forwards and for the gradient to the input, which is again a 3×3 convolution. Rounding is
about 1e-5 of the largest value where a direct convolution has 1e-6.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

TILE, STRIDE = 6, 4
AT_ONCE = 2**15  # tiles × channels worked on at once, so that a tile buffer (36 of these) stays in the cache
APART = 80  # numbers between two planes of a buffer: planes a power of two apart would compete for the same places of the caches
FEWEST_CHANNELS = 64  # below this, moving tiles costs more than the multiplications saved

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
    at_once = max(1, AT_ONCE // (down * across * max(c, k)))
    padded, inside = _padded(at_once, height, width, c)
    at_once = min(n, at_once)
    image, row, column, channel = padded.stride()
    places = (row, column, image, row * STRIDE, column * STRIDE, channel)
    answer = torch.empty((n, k, down * STRIDE, across * STRIDE), dtype=inputs.dtype, memory_format=torch.channels_last)
    out = answer.permute(0, 2, 3, 1).view(n, down, STRIDE, across, STRIDE, k)
    here, there = _workspace(TILE * TILE * (at_once * down * across * max(c, k) + APART))
    for first in range(0, n, at_once):
        part = padded[: min(at_once, n - first)]
        inside[: len(part)].copy_(inputs[first : first + at_once].permute(0, 2, 3, 1))
        count = len(part) * down * across
        given, made = count * c + APART, count * k + APART  # numbers from one plane to the next
        tiles, turned = here[: TILE * TILE * given].view(TILE, TILE, given), there[: TILE * TILE * given].view(TILE, -1)
        shape = (TILE, TILE, len(part), down, across, c)
        tiles[:, :, : count * c].view(shape).copy_(part.as_strided(shape, places, part.storage_offset()))
        torch.mm(_INPUT, tiles.view(TILE, -1), out=turned)
        torch.matmul(_INPUT, turned.view(TILE, TILE, -1), out=tiles)
        product = there[: TILE * TILE * made].view(TILE * TILE, made)
        planes = tiles.view(TILE * TILE, -1)[:, : count * c].view(-1, count, c)
        torch.bmm(planes, weights, out=product[:, : count * k].view(-1, count, k))
        narrow = here[: STRIDE * TILE * made].view(STRIDE, -1)
        torch.mm(_OUTPUT, product.view(TILE, -1), out=narrow)
        final = there[: STRIDE * STRIDE * made].view(STRIDE, STRIDE, made)
        torch.matmul(_OUTPUT, narrow.view(STRIDE, TILE, -1), out=final)
        blocks = final[:, :, : count * k].view(STRIDE, STRIDE, len(part), down, across, k)
        torch.add(blocks.permute(2, 3, 0, 4, 1, 5), bias, out=out[first : first + at_once])
    if (height, width) == answer.shape[2:]:
        return answer
    return answer[:, :, :height, :width].clone(memory_format=torch.channels_last)


_SPACES = threading.local()


def _workspace(size: int) -> tuple[Tensor, Tensor]:
    """Two buffers of so many numbers, the same on each call of a thread."""
    known: Tensor | None = getattr(_SPACES, "space", None)
    if known is None or len(known) < 2 * size:
        known = _SPACES.space = torch.zeros(2 * size)  # what lies between the planes is worked on too
    return known[:size], known[size:]


def _padded(count: int, height: int, width: int, channels: int) -> tuple[Tensor, Tensor]:
    """Room for so many images with a border of zeros that whole tiles fill, and its inside, which is to be written to: the
    same on each call of a thread."""
    rooms: dict[tuple[int, ...], Tensor] = _SPACES.__dict__.setdefault("rooms", {})
    key = (count, height, width, channels)
    if key not in rooms:
        down, across = -(-height // STRIDE), -(-width // STRIDE)
        rooms[key] = torch.zeros(count, down * STRIDE + 2, across * STRIDE + 2, channels)
    return rooms[key], rooms[key][:, 1 : 1 + height, 1 : 1 + width]


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


def suits(layer: nn.Module) -> bool:
    """Whether this is a plain 3×3 convolution with enough channels."""
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or layer.groups != 1:
        return False
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    enough = min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS
    return enough and shape == ((3, 3), (1, 1), (1, 1), (1, 1))
