"""Wisconsin diagnostic breast cancer (569 rows), bundled with scikit-learn: the embedded table."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_breast_cancer

from palimpsest.data.base import Dataset
from palimpsest.types import Examples, Split


@dataclass(frozen=True)
class BreastCancer(Dataset):
    """569 rows of 30 real features in two classes (malignant, benign). Features keep their units; the model normalises."""

    about = "diagnostic breast cancer, 30 features, 2 classes, bundled"

    def load(self) -> Split:
        source = load_breast_cancer()
        features = torch.from_numpy(source.data).float()
        ids = [f"breast_cancer/{row:03d}" for row in range(len(features))]
        records = Examples.of({"features": features}, torch.from_numpy(source.target), ids)
        return self.part("breast_cancer", "features", records, tuple(str(name) for name in source.target_names))
