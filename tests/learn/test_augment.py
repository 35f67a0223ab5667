"""Crops are windows of the zero-padded image, flips are mirrors, and both are decided by the generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from palimpsest.learn.augment import augment, crop
from palimpsest.rng import Rng


def images(n: int, channels: int, side: int) -> Tensor:
    """No two pixels alike and none zero, so that a pixel's place can be told."""
    return torch.arange(1.0, 1 + n * channels * side * side).view(n, channels, side, side)


def padded(image: Tensor, pad: int) -> Tensor:
    channels, height, width = image.shape
    canvas = torch.zeros(channels, height + 2 * pad, width + 2 * pad)
    canvas[:, pad : pad + height, pad : pad + width] = image
    return canvas


def windows(image: Tensor, pad: int) -> dict[tuple[int, int], Tensor]:
    side, canvas = image.shape[-1], padded(image, pad)
    return {(r, c): canvas[:, r : r + side, c : c + side] for r in range(2 * pad + 1) for c in range(2 * pad + 1)}


@pytest.mark.parametrize(("side", "pad"), [(8, 1), (32, 4), (4, 1)])
def test_a_crop_is_a_window_of_the_padded_image(side: int, pad: int) -> None:
    given = images(40, 2, side)
    cropped = augment(given, "crop", Rng(0).torch())
    shifts = []
    for image, result in zip(given, cropped, strict=True):
        places = [place for place, window in windows(image, pad).items() if torch.equal(window, result)]
        assert len(places) == 1, "not a window of its own image, all channels alike"
        shifts += places
    assert {row for row, _ in shifts} >= {0, 2 * pad}
    assert {column for _, column in shifts} >= {0, 2 * pad}
    assert len(set(shifts)) > 4, "rows and columns move together"


def test_the_middle_window_is_the_image_and_every_window_comes() -> None:
    given = images(1, 1, 8).expand(400, 1, 8, 8)
    results = {tuple(result.flatten().tolist()) for result in crop(given, 1, Rng(1).torch())}
    assert len(results) == 9
    assert tuple(given[0].flatten().tolist()) in results


def test_a_crop_keeps_pixels_and_pads_with_zeros() -> None:
    given = images(20, 3, 8)
    for image, result in zip(given, crop(given, 2, Rng(2).torch()), strict=True):
        kept = result[result != 0]
        assert set(kept.tolist()) <= set(image.flatten().tolist())
        assert len(kept) == len(set(kept.tolist()))
        assert len(kept) % 3 == 0
        assert len(kept) >= 3 * 6 * 6


def test_a_flip_is_the_image_or_its_mirror_about_evenly() -> None:
    given = images(400, 1, 4)
    flipped = augment(given, "flip", Rng(3).torch())
    mirrored = 0
    for image, result in zip(given, flipped, strict=True):
        assert sorted(result.flatten().tolist()) == sorted(image.flatten().tolist())
        is_mirror = torch.equal(result, image.flip(-1))
        assert is_mirror or torch.equal(result, image)
        mirrored += is_mirror
    assert 150 < mirrored < 250


def test_crop_and_flip_is_both() -> None:
    given = images(60, 1, 8)
    seen = set()
    for image, result in zip(given, augment(given, "crop+flip", Rng(4).torch()), strict=True):
        plain = any(torch.equal(result, window) for window in windows(image, 1).values())
        mirror = any(torch.equal(result.flip(-1), window) for window in windows(image, 1).values())
        assert plain != mirror
        seen.add((mirror, bool((result == 0).any())))
    assert len(seen) == 4


def test_none_is_nothing() -> None:
    given = images(3, 1, 4)
    assert augment(given, "none", Rng(0).torch()) is given


@pytest.mark.parametrize("how", ["crop", "flip", "crop+flip"])
def test_the_generator_decides_and_the_input_stays(how: str) -> None:
    given = images(30, 2, 8)
    before = given.clone()
    first, again, other = (augment(given, how, Rng(seed).torch()) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(given, before)
    assert first.shape == given.shape
