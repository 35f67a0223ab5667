"""A convolutional network of seven convolutions, after the inversion paper's "ConvNet"."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.models.base import Model
from palimpsest.task import Classification


@dataclass(frozen=True)
class ConvNet(Model):
    """Seven 3×3 convolutions with batch norm and ReLU, two poolings, one linear layer.

    The pooling after the fifth convolution halves the image, the last one is global unless `places` says otherwise, so that 8×8
    and 32×32 images both work. The paper names a 7-layer convolutional network; the widths here are w, 2w, 2w, 4w, 4w, 4w, 4w. In
    public code of gradient inversion the last pooling leaves 3×3 places (Geiping et al. 2020), whose gradients say more of where
    things are in an image than those of a global one.
    """

    about = "seven convolutions; width 64 is the papers' size"
    images_only = True

    width: int = setting(16, "channels of the first convolution", source="ours; 64 at paper scale", least=1)
    places: int = setting(
        1, "rows and columns that the last pooling leaves, at most", source="ours; Geiping et al. 2020: 3", least=1
    )

    def network(self, task: Classification) -> nn.Module:
        if min(task.shape[1:]) < 2:
            raise BadInput("convnet", got=f"images of shape {task.shape}", expected="2×2 pixels or more", do="use mlp")
        channels = [task.shape[0], *(self.width * factor for factor in (1, 2, 2, 4, 4, 4, 4))]
        layers: list[nn.Module] = [convolution(a, b) for a, b in itertools.pairwise(channels)]
        layers.insert(5, nn.MaxPool2d(2))
        sides = [side // 2 for side in task.shape[1:]]
        blocks = [math.ceil(side / self.places) for side in sides]
        left = math.prod(math.ceil(side / block) for side, block in zip(sides, blocks, strict=True))
        last = Largest() if self.places == 1 else nn.MaxPool2d((blocks[0], blocks[1]), ceil_mode=True)
        return nn.Sequential(*layers, last, nn.Flatten(), nn.Linear(channels[-1] * left, task.classes))


class Largest(nn.Module):
    """The largest value of each channel, (n, c, h, w) → (n, c): global max pooling, whose gradient is deterministic on a GPU, as
    that of `nn.AdaptiveMaxPool2d` is not. Values that share the maximum share its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


def convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
