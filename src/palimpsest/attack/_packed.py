"""Frozen convolutions on a CPU with their weights laid out for oneDNN once, instead of at every call.

The gradient to the input of a convolution of stride 1 is the convolution of the slope with the weights turned round, so it
takes packed weights too. Made for one shape of records, on which the layout depends; other batch sizes work, and may be
slower. Results are the usual ones up to rounding, and mostly to the bit. The two operators are those of torch's own compiler;
a version of torch that lacks them packs nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ONES = [1, 1]
FEWEST_WEIGHTS = 2**16  # below this, laying them out at every call costs nothing that one would see


def available() -> bool:
    names = ("_reorder_convolution_weight", "_convolution_pointwise")
    built = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return built and all(hasattr(torch.ops.mkldnn, name) for name in names)


class _Convolution(torch.autograd.Function):
    """Nothing is kept for the way back: the weights are frozen."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: Packed) -> Tensor:
        ctx.layer = layer
        return _convolve(inputs, layer.forth, layer.bias, layer.padding)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return _convolve(slopes[0], ctx.layer.back, None, ctx.layer.turned), None


def _convolve(inputs: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    answer: Tensor = torch.ops.mkldnn._convolution_pointwise(
        inputs, weight, bias, padding, ONES, ONES, 1, "none", [], ""
    )
    return answer


class Packed(nn.Module):
    """Stands in for a frozen convolution of stride 1; gives no gradient to its weights."""

    def __init__(self, layer: nn.Conv2d, shape: torch.Size) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.padding = [int(size) for size in layer.padding]
        self.turned = [kernel - 1 - pad for kernel, pad in zip(weight.shape[2:], self.padding, strict=True)]
        self.bias = None if layer.bias is None else layer.bias.detach()
        back = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        high, wide = (
            size + 2 * pad - kernel + 1
            for size, pad, kernel in zip(shape[2:], self.padding, weight.shape[2:], strict=True)
        )
        self.forth = reorder(weight, self.padding, ONES, ONES, 1, list(shape))
        self.back = reorder(back, self.turned, ONES, ONES, 1, [shape[0], len(weight), high, wide])

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = _Convolution.apply(inputs, self)  # type: ignore[no-untyped-call]
        return answer


def suits(layer: nn.Module) -> bool:
    """Whether this is a plain convolution of stride 1 with many weights that is padded by less than its kernel."""
    if (
        type(layer) is not nn.Conv2d
        or layer.padding_mode != "zeros"
        or layer.groups != 1
        or isinstance(layer.padding, str)
    ):
        return False
    within = all(pad < kernel for pad, kernel in zip(layer.padding, layer.kernel_size, strict=True))
    many = layer.weight.numel() >= FEWEST_WEIGHTS
    return within and many and layer.stride == (1, 1) and layer.dilation == (1, 1) and available()
