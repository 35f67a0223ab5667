"""Residual networks with a CIFAR stem: a 3×3 convolution of stride 1 and no pooling before the first block."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

NARROW = 16
"""Channels below which torch's CPU kernel for the weights of a strided 1×1 convolution may write where it must not: fewer than a
vector holds, channels last, as images of one channel are (oneDNN issue 6035; torch 2.13.0 crashes, or its gradients are wrong)."""


def conv_bn(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module]()
    if kernel == 1 and stride > 1 and before < NARROW:  # every other pixel, then a convolution without stride: the same
        layers["subsampled"], stride = nn.AvgPool2d(1, stride), 1
    layers["0"] = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    layers["1"] = nn.BatchNorm2d(after)
    return nn.Sequential(layers)


class Block(nn.Module):
    """A residual block: two 3×3 convolutions, or with `bottleneck` 1×1, 3×3, 1×1 with four times the channels."""

    def __init__(self, before: int, channels: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        after = channels * (4 if bottleneck else 1)
        if bottleneck:
            self.body = nn.Sequential(
                conv_bn(before, channels, 1),
                nn.ReLU(),
                conv_bn(channels, channels, 3, stride),
                nn.ReLU(),
                conv_bn(channels, after, 1),
            )
        else:
            self.body = nn.Sequential(conv_bn(before, channels, 3, stride), nn.ReLU(), conv_bn(channels, after, 3))
        same = stride == 1 and before == after
        self.skip: nn.Module = nn.Identity() if same else conv_bn(before, after, 1, stride)
        self.out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.body(x) + self.skip(x))
        return y


class ResNet(nn.Module):
    """Stem, four stages of residual blocks, global average pooling, linear head."""

    def __init__(
        self, inputs: int, classes: int, width: int, depths: tuple[int, int, int, int], bottleneck: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(inputs, width, 3), nn.ReLU())
        before, stages = width, []
        for stage, depth in enumerate(depths):
            channels = width * 2**stage
            blocks = []
            for index in range(depth):
                blocks.append(Block(before, channels, 2 if stage and not index else 1, bottleneck))
                before = channels * (4 if bottleneck else 1)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(before, classes)

    def encode(self, x: Tensor) -> Tensor:
        """Features before the head, shape (n, features)."""
        features: Tensor = self.pool(self.stages(self.stem(x)))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encode(x))
        return logits

    def blocks(self) -> list[nn.Module]:
        return [self.stem, *(block for stage in self.stages for block in stage.children()), self.head]
