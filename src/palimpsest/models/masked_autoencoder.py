"""A masked autoencoder of small images (He et al. 2022), whose task is reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.models._masked_autoencoder import MaskedAutoencoder as Network
from palimpsest.models.base import Model, Restored
from palimpsest.reconstruction import Reconstruction
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Split


@dataclass(frozen=True)
class MaskedAutoencoder(Model):
    """A transformer that sees half of an image's patches and gives back the pixels of all.

    The defaults suit 32×32 images on two CPU cores: with AdamW (lr 1.5e-3, momentum 0.9, weight decay 0.05, batches of 32, 20 to
    30 epochs of 10,000 images) the error on hidden pixels of CIFAR-10 is about 0.011, a quarter of that of a constant. Images of
    8×8 take patches of 2.
    """

    about = "masked autoencoder; gives back the hidden half of an image"
    images_only = True
    solves: ClassVar[str] = Reconstruction.name

    patch: int = setting(4, "side of a patch in pixels; it has to divide the image's sides", source="ours", least=1)
    hidden: float = setting(
        0.5, "share of the patches that are hidden, in (0, 1)", source="ours; 0.75 in He et al.", above=0, below=1
    )
    width: int = setting(96, "values of an encoder token, a multiple of 4 and of `heads`", source="ours; 768", least=4)
    depth: int = setting(3, "encoder blocks", source="ours; 12 in He et al.", least=1)
    heads: int = setting(6, "attention heads", source="ours; 12 in He et al.", least=1)
    decoder_width: int = setting(
        96, "values of a decoder token, a multiple of 4 and of `heads`", source="ours", least=4
    )
    decoder_depth: int = setting(2, "decoder blocks", source="ours; 8 in He et al.", least=1)
    ratio: int = setting(2, "hidden units of a block, in widths", source="ours; 4 in He et al.", least=1)

    def task(self, split: Split) -> Reconstruction:
        return Reconstruction.of(split, self.patch, self.hidden)

    def network(self, task: Task) -> Network:
        channels, height, width = task.shape
        return Network(
            (channels, height, width),
            self.patch,
            self.width,
            self.depth,
            self.heads,
            self.decoder_width,
            self.decoder_depth,
            self.ratio,
        )

    def build(self, task: Task, rng: Rng) -> nn.Module:
        """A fresh model: images (n, *task.shape) and masks (n, patches) → images. Same stream, same weights.

        Raises BadInput for another task, and for sizes that do not fit.
        """
        if not isinstance(task, Reconstruction) or task.patch != self.patch:
            got = f"the task {task.name}" if not isinstance(task, Reconstruction) else f"patches of {task.patch} pixels"
            raise BadInput(name_of(self), got=got, expected=f"reconstruction of patches of {self.patch} pixels")
        with rng.child("initial-weights").ambient():
            return Restored(self.network(task), task.mean, task.std)
