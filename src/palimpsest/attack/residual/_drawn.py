"""What the attack on models of images compares: answers on hidden pixels, and the measures of what was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from palimpsest.measures.image import frechet_distance, inception_score, l1, psnr, ssim
from palimpsest.measures.intervals import centred, mean, statistic
from palimpsest.measures.likeness import likeness, recovery
from palimpsest.reconstruction import MASK, Reconstruction
from palimpsest.types import Array, Batch, Measure, Scores

GROUPS = ("forget", "retain")
CEILING = 60.0
"""dB at which a PSNR is cut, as identical images have an infinite one."""
REPLICATES = 60
"""Resamples of a Fréchet distance or an Inception score."""


class Hidden(nn.Module):
    """A model's answers on hidden pixels, 0 elsewhere: (n, c, h, w) images and (n, patches) masks → (n, c, h, w)."""

    def __init__(self, model: nn.Module, task: Reconstruction) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        batch = Batch({self.task.attacked_input: image, MASK: mask}, torch.zeros(len(image), dtype=torch.long))
        return self.task.outputs(self.model, batch) * self.task.hidden_pixels(batch)


def squared(answer: Float[Tensor, "n c h w"], wanted: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Sum of squared differences per record."""
    return (answer - wanted).square().flatten(1).sum(1)


@torch.no_grad()
def answers(task: Reconstruction, model: nn.Module, batch: Batch, size: int = 256) -> Float[Tensor, "n c h w"]:
    """What a model in evaluation mode gives back, in [0, 1], on the batch's device."""
    parts = []
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        few = Batch({name: values[rows] for name, values in batch.inputs.items()}, batch.targets[rows])
        parts.append(task.posterior(model, few))
    return torch.cat(parts)


@dataclass(frozen=True)
class Compared:
    """Records and what was drawn of them, on the CPU: truth, where hidden, fill, and the original's answer, each (n, c, h, w)."""

    truth: Tensor
    where: Tensor
    fill: Tensor
    before: Tensor

    def columns(self, answer: Tensor, size: int = 64) -> dict[str, Array]:
        """Distances of one answer (n, c, h, w), each of shape (n,)."""
        found: dict[str, list[Tensor]] = {"l1": [], "whole_l1": [], "resemblance": [], "psnr": [], "ssim": []}
        for start in range(0, len(answer), size):
            rows = slice(start, start + size)
            truth, where, fill, before = (v[rows] for v in (self.truth, self.where, self.fill, self.before))
            drawn = torch.where(where, answer[rows], truth)
            found["l1"].append(l1(drawn, before, where))
            found["whole_l1"].append(l1(answer[rows], before))
            found["resemblance"].append(likeness(drawn, before, fill, where))
            found["psnr"].append(psnr(drawn, truth, where, ceiling=CEILING))
            found["ssim"].append(ssim(drawn, truth, where))
        return {name: torch.cat(values).numpy() for name, values in found.items()}

    def pasted(self, answer: Tensor) -> Tensor:
        """The answer's hidden pixels among the true visible ones."""
        return torch.where(self.where, answer, self.truth)


def measures(scores: Scores, prefix: str, extractor: str) -> Iterator[Measure]:
    """All measures of the attack, as its docstring says."""
    group = scores["group"]
    parts = [scores.where(group == index) for index in range(len(GROUPS))]
    for place, radius in enumerate((0.0, *scores.axes["epsilon"])):
        at = {"epsilon": radius}
        likes = [part["resemblance"][:, place] for part in parts]
        if len(likes[0]) and len(likes[1]):
            yield statistic(f"{prefix}.forget_recovery_rate", recovery, *likes, at=at)
        for name, part in zip(GROUPS, parts, strict=True):
            if not len(part.ids):
                continue
            for what in ("resemblance", "l1", "whole_l1", "psnr", "ssim"):
                yield mean(f"{prefix}.{name}_{what}", part[what][:, place], at=at, stream=name)
            if len(part.ids) > 1:
                pairs = np.stack([part["features"][:, 0], part["features"][:, 1 + place]], 1)
                told = statistic(f"{prefix}.{name}_fid_{extractor}", _fid, pairs, at=at, replicates=REPLICATES)
                yield centred(told)
                seen = part["posteriors"][:, 1 + place]
                told = statistic(f"{prefix}.{name}_is_{extractor}", _is, seen, at=at, replicates=REPLICATES)
                yield centred(told)
            if place:
                both = part["l1"][:, [0, place]]
                yield statistic(f"{prefix}.{name}_l1_ratio", _ratio, both, at=at)


def _fid(pairs: Array) -> float:
    return frechet_distance(torch.from_numpy(pairs[:, 0]), torch.from_numpy(pairs[:, 1]))


def _is(posteriors: Array) -> float:
    return inception_score(torch.from_numpy(posteriors))


def _ratio(pairs: Array) -> float:
    """Mean distance before the attack over that after it; after it one level an image at least."""
    return float(pairs[:, 0].mean() / max(1.0, pairs[:, 1].mean()))
