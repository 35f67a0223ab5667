"""The papers' data sets as presets, on folders with the columns and splits of those on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from palimpsest import presets
from palimpsest.audit.requests import chosen_requests
from palimpsest.options import make_plan, reader
from palimpsest.task import Classification

CLASSES = {
    "uma-cifar10": [0],
    "uma-cifar100": [5, 16, 25, 34, 78],
    "uma-tiny-imagenet": [4, 12, 66, 72, 97, 143, 149, 165, 175, 190],
    "uma-imagenet-1k": list(range(10)),
}
"""As section 5.1 of the UMA paper has them; of ImageNet-1k it names none."""
SCHEMAS: dict[str, tuple[int, int, str, str, tuple[str, str]]] = {
    "uma-cifar10": (10, 32, "img", "label", ("train", "test")),
    "uma-cifar100": (100, 32, "img", "fine_label", ("train", "test")),
    "uma-tiny-imagenet": (200, 64, "image", "label", ("train", "valid")),
    "uma-imagenet-1k": (1000, 8, "image", "label", ("train", "validation")),
}
"""Classes, side, columns and splits on the hub."""


def written(folder: Path, preset: str) -> Path:
    """Four training images and two others of each class."""
    classes, side, image, label, splits = SCHEMAS[preset]
    draw = np.random.default_rng(0)
    features: dict[str, Any] = {image: datasets.Image(), label: datasets.ClassLabel(num_classes=classes)}
    if label == "fine_label":
        features["coarse_label"] = datasets.ClassLabel(num_classes=20)
    parts = {}
    for split, each in zip(splits, (4, 2), strict=True):
        labels = np.repeat(np.arange(classes), each)
        pixels = draw.integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
        columns: dict[str, Any] = {image: list(pixels), label: labels.tolist()}
        if "coarse_label" in features:
            columns["coarse_label"] = (labels // 5).tolist()
        parts[split] = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    datasets.DatasetDict(parts).save_to_disk(str(folder / preset))
    return folder / preset


@pytest.mark.parametrize("preset", sorted(CLASSES))
def test_a_preset_reads_the_hubs_columns_and_forgets_the_papers_classes(
    preset: str, tmp_path: Path, offline: None, own_cache: Path
) -> None:
    chosen = presets.read(preset)
    assert str(chosen.data).startswith("hub:")
    chosen = chosen.model_copy(update={"data": str(written(tmp_path, preset))})
    plan = make_plan(chosen, reader(chosen))
    split = plan.data.load()
    assert len(split.classes) == SCHEMAS[preset][0]
    assert split.shape[0] == 3
    assert len(split.test) == 2 * len(split.classes)
    assert (len(split.train), len(split.validation)) == (4 * len(split.classes) - 1, 1), "the paper's size, but for one"
    (request,) = chosen_requests(plan, split, Classification.of(split), 0)
    gone = split.train.only(request.ids.tolist()).targets.numpy()
    assert sorted(set(gone.tolist())) == CLASSES[preset]
    assert len(gone) == np.isin(split.train.targets.numpy(), CLASSES[preset]).sum()
