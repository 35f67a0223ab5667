"""The folders of real data: CIFAR-10, German credit, IMDb."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from palimpsest.data import open_data
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification, predict
from palimpsest.types import Split

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(data_folder: Path, request: pytest.FixtureRequest) -> str:
    place = data_folder / request.param
    if not place.exists():
        pytest.skip(f"data missing: {place} (set PALIMPSEST_DATA)")
    return str(place)


def accuracy(split: Split, lr: float, epochs: int = 5) -> float:
    task = Classification.of(split)
    made = Plain().fit(task, split.train, Recipe(epochs=epochs, lr=lr), Linear(), rng=Rng(0))
    answers = predict(task, made.model, split.test).argmax(1)
    return float((answers == split.test.targets).float().mean())


@pytest.mark.parametrize("folder", ["cifar10"], indirect=True)
def test_cifar10(offline: None, folder: str) -> None:
    started = time.perf_counter()
    split = open_data(folder, {"limit": 2000}).load()
    assert time.perf_counter() - started < 30  # all 60,000 images take longer than that of a slow machine
    assert (split.name, split.kind, split.shape) == ("cifar10", "image", (3, 32, 32))
    assert split.classes[:2] == ("airplane", "automobile")
    assert len(split.train) + len(split.validation) == len(split.test) == 2000
    mapped = open_data(folder, {"limit": 2000, "memory_limit": 0}).load()
    assert mapped.fingerprint == split.fingerprint
    assert torch.equal(mapped.test.batch().inputs["image"], split.test.batch().inputs["image"])
    assert accuracy(split, 0.001) > 0.2


@pytest.mark.parametrize("folder", ["german_credit"], indirect=True)
def test_german_credit(offline: None, folder: str) -> None:
    split = open_data(folder).load()
    assert (split.kind, split.shape, split.classes) == ("features", (24,), ("0", "1"))
    assert len(split.train) + len(split.validation) + len(split.test) == 1000
    assert split.train.context["features"][0] == "attribute_1"
    assert open_data(folder, {"memory_limit": 0}).load().fingerprint == split.fingerprint
    assert accuracy(split, 0.1, 20) > 0.72  # 0.707 of the test records are of one class


@pytest.mark.parametrize("folder", ["imdb"], indirect=True)
def test_imdb(offline: None, folder: str) -> None:
    split = open_data(folder, {"limit": 2000}).load()
    assert (split.kind, split.shape, split.classes) == ("text", (1024,), ("neg", "pos"))
    assert accuracy(split, 0.01) > 0.65
