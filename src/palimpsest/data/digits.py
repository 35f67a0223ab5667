"""Handwritten digits, 8×8 (1,797 images), bundled with scikit-learn: the embedded default."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits

from palimpsest.data.base import Dataset
from palimpsest.types import Examples, Split


@dataclass(frozen=True)
class Digits(Dataset):
    """1,797 grey images of 8×8 pixels in 10 classes (UCI Optical Recognition of Handwritten Digits, test part).

    Pixels are stored as uint8: the source's 0 … 16 scaled to 0 … 255. Works offline. The source does not name writers,
    so there are no owners.
    """

    about = "handwritten digits, 8×8 grey, 10 classes, bundled"

    def load(self) -> Split:
        source = load_digits()
        pixels = torch.from_numpy((source.images * (255 / 16)).round().astype("uint8")).unsqueeze(1)
        ids = [f"digits/{row:04d}" for row in range(len(pixels))]
        records = Examples.of({"image": pixels}, torch.from_numpy(source.target), ids)
        return self.part("digits", "image", records, tuple(str(name) for name in source.target_names))
