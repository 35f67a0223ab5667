"""Residual networks with a CIFAR stem: a 3×3 convolution of stride 1 and no pooling before the first block."""

from __future__ import annotations

from torch import Tensor, nn


def conv_bn(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(after),
    )


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
