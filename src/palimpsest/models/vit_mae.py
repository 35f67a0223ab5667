"""A pre-trained masked autoencoder: any checkpoint of ViTMAE, from a folder or from the Hugging Face hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput, told
from palimpsest.models._transformers import Checkpoint
from palimpsest.models._vit_mae import Masked
from palimpsest.models.base import Model, Restored
from palimpsest.reconstruction import Reconstruction
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Split

SCALE = "preprocessor_config.json"
"""The file in which a checkpoint may say how its images were normalised."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and spread of ImageNet's pixels in [0, 1], red, green and blue, as MAE's authors and their checkpoints have them."""


@dataclass(frozen=True)
class VitMae(Model):
    """He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", as `transformers.ViTMAEForPreTraining`.

    Needs `pip install 'palimpsest-ml[generation]'`. Images must have the checkpoint's channels and size: 3×224×224 for the
    default, which `--set hub.size=224` makes of others. Which patches are hidden follows from a record's id, as for every model of
    this task; the model's own drawing and its `mask_ratio` play no part. Images are normalised within, by the checkpoint's
    `preprocessor_config.json`, else by ImageNet's constants.

    Training goes on from the checkpoint, and so does retraining. What a "retrained" control shows is therefore a model that was
    tuned without the forgotten records, not one that never saw them: checkpoints of MAE were pre-trained on all of ImageNet-1k.
    Call that exact only for records that had no part in the checkpoint; this cannot be checked here. The "untrained" control has
    the checkpoint's sizes and fresh weights.

    Refused are checkpoints with `norm_pix_loss`. These predict patches less their own mean and divided by their own spread, and
    both are known of visible patches only: pixels could be had back by looking at what is hidden. Whether a configuration tells
    the truth about that cannot be checked; the script that made the default takes MAE's `visualize` weights, which predict pixels.

    A checkpoint is known by what is in it, not by its path, and by the version of transformers. What was downloaded of a hub name
    before is used without looking for a newer one. Only safetensors are read, no pickle. Whether a name on the hub has them is
    found out when it is used; it was not tried here.
    """

    about = "pre-trained masked autoencoder: a ViTMAE checkpoint"
    images_only = True
    solves: ClassVar[str] = Reconstruction.name
    pretrained: ClassVar[bool] = True

    path: str = setting(
        "facebook/vit-mae-base", "a folder written by `save_pretrained`, or a name on the hub", source="ours; ViT-B/16"
    )
    hidden: float = setting(
        0.5, "share of the patches that are hidden, in (0, 1)", source="ours; 0.75 in He et al.", above=0, below=1
    )

    def task(self, split: Split) -> Reconstruction:
        """Raises BadInput where transformers is missing, the checkpoint cannot be used, or images have another size."""
        found = self._checkpoint()
        if split.kind == "image" and tuple(split.shape) != found.shape:
            got, expected = f"images of shape {tuple(split.shape)}", f"{found.shape}, the checkpoint's"
            raise BadInput(name_of(self), got=got, expected=expected, do=f"--set hub.size={found.shape[1]} resizes")
        return Reconstruction.of(split, found.patch, self.hidden)

    def build(self, task: Task, rng: Rng) -> nn.Module:
        """The checkpoint's model, images (n, *task.shape) and masks (n, patches) → images; the same from every stream.

        Raises BadInput for another task or size, where transformers is missing, and for a checkpoint that cannot be read, is no
        ViTMAE, lacks weights or has any that are not finite.
        """
        found = self._fitting(task)
        with rng.child("initial-weights").ambient():
            return Restored(self.network(task), found.mean, found.std)

    def network(self, task: Task) -> Masked:
        found = self._fitting(task)
        return Masked(self._weights(), found.shape, found.patch)

    def untrained(self, task: Task, rng: Rng) -> nn.Module:
        """The same model with weights drawn as before any training. Positions stay, which are no weights."""
        found = self._fitting(task)
        with rng.child("initial-weights").ambient():
            given, fresh = self._weights(), self._source.package().ViTMAEForPreTraining(found.config)
        fresh.vit.embeddings.position_embeddings.data.copy_(given.vit.embeddings.position_embeddings)
        fresh.decoder.decoder_pos_embed.data.copy_(given.decoder.decoder_pos_embed)
        return Restored(Masked(fresh, found.shape, found.patch), found.mean, found.std)

    def identity_extra(self) -> dict[str, Any]:
        """The hash of the checkpoint in the place of its path: a moved one is the same model, an edited one another."""
        found = self._checkpoint()
        return dict(self._source.identity(mean=found.mean, std=found.std))

    def _fitting(self, task: Task) -> _Checkpoint:
        """The checkpoint, where it fits the task."""
        found = self._checkpoint()
        if not isinstance(task, Reconstruction) or task.shape != found.shape or task.patch != found.patch:
            got = f"the task {task.name}"
            if isinstance(task, Reconstruction):
                got = f"images of shape {task.shape} in patches of {task.patch} pixels"
            expected = f"reconstruction of images of shape {found.shape} in patches of {found.patch} pixels"
            raise BadInput(name_of(self), got=got, expected=expected)
        return found

    def _checkpoint(self) -> _Checkpoint:
        source = self._source
        config = source.config()
        if config.norm_pix_loss:
            got, expected = "norm_pix_loss, patches that are normalised one by one", "a checkpoint that predicts pixels"
            raise BadInput(self.path, got=got, expected=expected, do="use facebook/vit-mae-base, or train without it")
        if not (isinstance(config.image_size, int) and isinstance(config.patch_size, int)):
            got = f"images of {config.image_size} in patches of {config.patch_size}"
            raise BadInput(self.path, got=got, expected="square images and patches")
        return _Checkpoint(config, *self._scale(source.folder(), config.num_channels))

    @property
    def _source(self) -> Checkpoint:
        return Checkpoint(self.path, "vit_mae", "generation", "ViTMAEForPreTraining", "vit_mae", (SCALE,))

    def _scale(self, folder: Path, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and spread by which the checkpoint's images were normalised, of each channel in [0, 1]."""
        mean: tuple[float, ...]
        std: tuple[float, ...]
        mean, std = IMAGENET
        if (folder / SCALE).exists():
            try:
                said = json.loads((folder / SCALE).read_text(encoding="utf-8"))
                mean, std = (tuple(map(float, said.get(key, []))) for key in ("image_mean", "image_std"))
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise BadInput(
                    str(folder / SCALE), got=told(error), expected="JSON as transformers writes it"
                ) from error
        if not (len(mean) == len(std) == channels and min(std) > 0):
            got, expected = f"means {mean} and spreads {std}", f"one of each for {channels} channels, spreads above 0"
            do = f"write image_mean and image_std into its {SCALE}"
            raise BadInput(self.path, got=got, expected=expected, do=do)
        return mean, std

    def _weights(self) -> Any:
        return self._source.weights(do="use a checkpoint that was saved with its decoder")


@dataclass(frozen=True)
class _Checkpoint:
    """What a folder says of its model. config: transformers' own. mean, std: per channel, of pixels in [0, 1]."""

    config: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.config.num_channels, self.config.image_size, self.config.image_size

    @property
    def patch(self) -> int:
        return int(self.config.patch_size)
