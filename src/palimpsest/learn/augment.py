"""Random crop and mirror as tensor operations on a whole batch, on whatever device it lives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def augment(images: Float[Tensor, "n c h w"], how: str, rng: torch.Generator) -> Float[Tensor, "n c h w"]:
    """`how` is none, crop, flip or crop+flip. Crops pad with zeros by an eighth of the side (4 pixels of 32)."""
    if how in ("crop", "crop+flip"):
        images = crop(images, max(1, images.shape[-1] // 8), rng)
    if how in ("flip", "crop+flip"):
        mirrored = torch.rand(len(images), generator=rng, device=rng.device).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


def crop(images: Float[Tensor, "n c h w"], pad: int, rng: torch.Generator) -> Float[Tensor, "n c h w"]:
    n, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    shift = torch.randint(2 * pad + 1, (2, n), generator=rng, device=rng.device).to(images.device)
    rows = (shift[0][:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (shift[1][:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    records = torch.arange(n, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[records, channels, rows, columns]
