"""The task of masked image reconstruction: a share of every image's patches is hidden, and a model gives back the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.store import digest
from palimpsest.task import Task, reduced
from palimpsest.types import Array, Batch, Examples, Ids, Split

MASK = "mask"
"""The input that `prepare` adds: which patches of a record are hidden."""


@dataclass(frozen=True)
class Reconstruction(Task):
    """Gives back an image of which a share `hidden` of the patches is hidden, in [0, 1], the visible pixels pasted in.

    A model of this task takes an image and a mask (n, patches), True = hidden, and returns an image. A record's mask follows from
    its id, so that original, retrained and unlearned models are asked the same. Classes take part in what is forgotten, never in
    the loss, unless a batch's targets are images themselves: these are then what is learnt.

    Answers are clamped to [0, 1] with the gradient of the unclamped ones: a value beyond the range is still told in which
    direction it errs, which a plain clamp would not do.
    """

    name = "reconstruction"

    shape: tuple[int, int, int]
    patch: int
    hidden: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    domain: tuple[Tensor, Tensor]
    attacked_input: str = "image"

    @staticmethod
    def of(split: Split, patch: int, hidden: float = 0.5) -> Reconstruction:
        """Raises BadInput for data that are no images, patches that do not fill them, and a share that hides none or all."""
        if split.kind != "image":
            raise BadInput("reconstruction", got=f"{split.kind} records", expected="images", do="choose another --data")
        channels, height, width = split.shape
        grid(split.shape, patch)
        found = Reconstruction(
            (channels, height, width),
            patch,
            hidden,
            (0.5,) * channels,
            (0.25,) * channels,
            split.domain,
            next(iter(split.train.inputs)),
        )
        if not 0 < found.count < found.patches:
            got = f"{found.count} of {found.patches} patches hidden (a share of {hidden:g})"
            raise BadInput("reconstruction", got=got, expected="at least one hidden and one visible")
        return found

    @property
    def answer(self) -> tuple[int, ...]:
        return self.shape

    @property
    def patches(self) -> int:
        rows, columns = grid(self.shape, self.patch)
        return rows * columns

    @property
    def count(self) -> int:
        """Hidden patches of a record."""
        return round(self.hidden * self.patches)

    def identity(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "shape": list(self.shape),
            "patch": self.patch,
            "hidden": self.hidden,
            "mean": self.mean,
            "std": self.std,
        }

    def prepare(self, split: Split) -> Split:
        """The split with the input "mask" in every part, (base size, patches), and a fingerprint that tells of it."""
        public = [] if split.public is None else [split.public]
        parts = masked((split.train, split.validation, split.test, *public), self.patches, self.count)
        told = {"data": split.fingerprint, "patch": self.patch, "hidden": self.count}
        return replace(
            split,
            train=parts[0],
            validation=parts[1],
            test=parts[2],
            public=parts[3] if public else None,
            fingerprint=digest(told),
        )

    def hidden_pixels(self, batch: Batch) -> Bool[Tensor, "n 1 h w"]:
        if MASK not in batch.inputs:
            got = f"the inputs {', '.join(batch.inputs)}"
            raise BadInput("reconstruction", got=got, expected=f"a {MASK!r} too", do="prepare the split")
        return pixel_mask(batch.inputs[MASK], self.shape, self.patch)

    def outputs(self, model: nn.Module, batch: Batch) -> Float[Tensor, "n c h w"]:
        """The image with its hidden pixels as the model gives them, in [0, 1]."""
        image = batch.inputs[self.attacked_input]
        where = self.hidden_pixels(batch)
        drawn = model(image, batch.inputs[MASK]).to(image.dtype)
        if drawn.shape != image.shape:
            got = f"answers of shape {tuple(drawn.shape[1:])}"
            raise BadInput("reconstruction", got=got, expected=f"images of shape {tuple(image.shape[1:])}")
        clamped = drawn + (drawn.detach().clamp(0.0, 1.0) - drawn.detach())
        return torch.where(where, clamped, image)

    def loss(self, model: nn.Module, batch: Batch, *, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
        """Mean squared error on hidden pixels, against the image or the images that are the targets."""
        if label_smoothing:
            raise BadInput("recipe.label_smoothing", got=label_smoothing, expected="0: images have no labels to smooth")
        drawn = self.outputs(model, batch)
        wanted = batch.targets if _are_images(batch.targets) else batch.inputs[self.attacked_input]
        return reduced(self._far(drawn, wanted, self.hidden_pixels(batch)), reduction)

    def loss_of(self, outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        """Of given outputs; the targets must be the images, whose visible pixels the outputs have too."""
        if not _are_images(targets):
            got = f"targets of shape {tuple(targets.shape)}"
            raise BadInput("reconstruction", got=got, expected="images", do="use a method that takes `task.loss`")
        everywhere = torch.ones_like(outputs[:, :1], dtype=torch.bool)
        return reduced(self._far(outputs, targets, everywhere) * self.patches / self.count, reduction)

    @torch.no_grad()
    def error(self, model: nn.Module, batch: Batch) -> Float[Tensor, " n"]:
        return self.loss(model, batch, reduction="none")

    def divergence(self, outputs: Tensor, posterior: Tensor) -> Float[Tensor, " n"]:
        """Mean squared distance of two answers to the same records, per hidden pixel: visible ones are equal."""
        return self.loss_of(outputs, posterior, reduction="none")

    def distillation(self, student: nn.Module, teacher: nn.Module, batch: Batch, temperature: float) -> Tensor:
        """Mean squared distance of the answers on hidden pixels; images have no temperature, which plays no part."""
        with torch.no_grad():
            wanted = self.outputs(teacher, batch)
        return self.divergence(self.outputs(student, batch), wanted).mean()

    def randomise(self, targets: Tensor, rng: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Noise around grey in the targets' place: a normal with the task's mean and spread in each pixel, cut to [0, 1].

        It is what a random label is to a classifier: it says nothing of the record. SalUn's paper takes other concepts' images for
        diffusion models and says nothing of masked autoencoders; the UMA paper shows grey or noise. Drawn afresh in every epoch,
        it teaches its mean: grey.
        """
        drawn = torch.randn((len(targets), *self.shape), generator=rng, device=rng.device).to(targets.device)
        mean, std = (torch.tensor(value, device=targets.device).view(1, -1, 1, 1) for value in (self.mean, self.std))
        return (mean + std * drawn).clamp(0.0, 1.0)

    @torch.no_grad()
    def posterior(self, model: nn.Module, batch: Batch) -> Float[Tensor, "n c h w"]:
        """The image that the model gives back, without gradient."""
        return self.outputs(model, batch)

    def fill(self, batch: Batch) -> Float[Tensor, "n c h w"]:
        """The image with its hidden pixels at the mean of its visible ones, channel by channel: what needs no model at all."""
        image, where = batch.inputs[self.attacked_input], self.hidden_pixels(batch)
        mean = (image * ~where).sum((2, 3), keepdim=True) / (~where).sum((2, 3), keepdim=True)
        return torch.where(where, mean, image)

    def _far(self, one: Tensor, other: Tensor, where: Tensor) -> Float[Tensor, " n"]:
        squares = (one - other).square() * where
        return squares.sum((1, 2, 3)) / (where.sum((1, 2, 3)) * self.shape[0])


def as_reconstruction(task: Task, who: str) -> Reconstruction:
    """The task, where it is a reconstruction. Raises BadInput, as `who`, where it is another."""
    if not isinstance(task, Reconstruction):
        got, do = f"the task {task.name}", "leave it out, or choose a --model such as masked_autoencoder"
        raise BadInput(who, got=got, expected=f"the task {Reconstruction.name}", do=do)
    return task


def _are_images(targets: Tensor) -> bool:
    return targets.is_floating_point() and targets.dim() == 4


def masked(parts: Sequence[Examples], patches: int, count: int) -> list[Examples]:
    """Examples with `count` of `patches` hidden in each record; parts that share a base share the base of masks.

    Rows of a base that belong to none of the parts hide nothing.
    """
    bases: dict[int, Tensor] = {}
    found = []
    for part in parts:
        base = next(iter(part.inputs.values()))
        if id(base) not in bases:
            bases[id(base)] = torch.zeros(len(base), patches, dtype=torch.bool, device=base.device)
        drawn = torch.from_numpy(drawn_masks(part.ids, patches, count))
        bases[id(base)][part.rows.to(base.device)] = drawn.to(base.device)
        found.append(replace(part, inputs={**part.inputs, MASK: bases[id(base)]}))
    return found


def drawn_masks(ids: Ids, patches: int, count: int) -> Array:
    """Which patches are hidden, Boolean (n, patches), `count` in each row: drawn from each id alone, whatever else is there."""
    keys = np.array([Rng(0).child(MASK, str(name)).key for name in ids.tolist()], dtype=np.uint64)
    order = np.argsort(scrambled(keys[:, None] + np.arange(patches, dtype=np.uint64)), axis=1, kind="stable")
    masks = np.zeros((len(ids), patches), dtype=bool)
    np.put_along_axis(masks, order[:, :count], True, axis=1)
    return masks


def scrambled(values: Array) -> Array:
    """A uniform 64-bit number for each 64-bit number (the finaliser of SplitMix64; Steele, Lea and Flood 2014)."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scattered: Array = mixed ^ (mixed >> np.uint64(31))
    return scattered


def grid(shape: tuple[int, ...], patch: int) -> tuple[int, int]:
    """Rows and columns of patches in an image (channels, height, width)."""
    if len(shape) != 3 or min(*shape, patch) < 1 or shape[1] % patch or shape[2] % patch:
        expected = "images (channels, height, width) that the patch divides"
        raise BadInput("patches", got=f"patches of {patch}×{patch} and records of shape {shape}", expected=expected)
    return shape[1] // patch, shape[2] // patch


def pixel_mask(
    mask: Bool[Tensor, "n patches"], shape: tuple[int, int, int], patch: int
) -> Bool[Tensor, "n 1 height width"]:
    """The mask of the patches as one of the pixels."""
    rows, columns = grid(shape, patch)
    if mask.shape[1] != rows * columns:
        raise BadInput("mask", got=f"{mask.shape[1]} patches", expected=f"{rows * columns}, for {shape}")
    cells = mask.reshape(len(mask), 1, rows, columns)
    return cells.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
