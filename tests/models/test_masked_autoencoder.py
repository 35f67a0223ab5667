"""The masked autoencoder: patches are exact, hidden pixels stay unseen, records stay apart, and it learns."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from palimpsest.errors import BadInput
from palimpsest.models._masked_autoencoder import (
    MaskedAutoencoder,
    assembled,
    patches,
    position_embedding,
)
from palimpsest.reconstruction import pixel_mask
from palimpsest.rng import Rng, determinism

SHAPE = (3, 8, 12)
PATCHES = 24
SIZES: dict[str, Any] = {
    "patch": 2,
    "width": 32,
    "depth": 2,
    "heads": 4,
    "decoder_width": 16,
    "decoder_depth": 2,
}


def made(seed: int = 0, **changes: Any) -> MaskedAutoencoder:
    with Rng(seed).ambient():
        return MaskedAutoencoder(**{"shape": SHAPE, **SIZES, **changes})


def images(n: int = 5) -> Tensor:
    return torch.randn(n, *SHAPE, generator=Rng(1).torch())


def masks(n: int = 5, hidden: int = 10) -> Tensor:
    return torch.rand(n, PATCHES, generator=Rng(2).torch()).argsort(1) < hidden


@pytest.mark.parametrize("hidden", [1, 10, 23])
def test_shapes(hidden: int) -> None:
    model, image, mask = made(), images(), masks(hidden=hidden)
    assert model(image, mask).shape == image.shape
    assert model.encode(image, mask).shape == (5, PATCHES - hidden, 32)
    assert model.double()(image.double(), mask).dtype == torch.float64


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_patches_come_row_by_row_and_go_back(n: int, channels: int, rows: int, columns: int, patch: int) -> None:
    shape = (channels, rows * patch, columns * patch)
    image = torch.arange(float(n * channels * rows * columns * patch**2)).view(n, *shape)
    found = patches(image, patch)
    for place in range(rows * columns):
        top, left = place // columns * patch, place % columns * patch
        piece = image[:, :, top : top + patch, left : left + patch]
        assert torch.equal(found[:, place], piece.reshape(n, -1))
    assert torch.equal(assembled(found, shape, patch), image)


def test_the_mask_of_pixels_covers_the_hidden_patches() -> None:
    mask = masks()
    found = pixel_mask(mask, SHAPE, 2)
    assert found.shape == (5, 1, 8, 12)
    assert torch.equal(patches(found.float(), 2).bool(), mask[:, :, None].expand(-1, -1, 4))


def test_hidden_pixels_have_no_influence() -> None:
    """Not even pixels that are no numbers change a bit of the latent tokens, the prediction, or any gradient."""
    model, image, mask = made(), images(), masks()
    hidden = pixel_mask(mask, SHAPE, 2).expand_as(image)
    seen = []
    for given_image in (image, image.masked_fill(hidden, float("nan"))):
        given_image.requires_grad_(True)
        predicted = model(given_image, mask)
        model.zero_grad()
        predicted.square().sum().backward()
        assert given_image.grad is not None
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert len(gradients) == len(list(model.parameters()))
        seen.append([model.encode(given_image, mask), predicted, given_image.grad, *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    assert (seen[0][2][hidden] == 0).all()
    assert (seen[0][2][~hidden] != 0).all()  # the visible ones do have influence


def test_hidden_places_differ_by_their_position_and_the_visible_patches() -> None:
    predicted = patches(made()(images(), masks()), 2)
    hidden = predicted[masks()].view(5, 10, -1)
    assert (hidden[:, 0] - hidden[:, 1]).abs().max() > 1e-3
    assert (predicted[0] - predicted[1]).abs().max() > 1e-3


def test_positions_are_told_apart_and_rows_are_the_first_half() -> None:
    table = position_embedding(4, 6, 16)
    assert torch.cdist(table, table).add(torch.eye(24)).min() > 0.1
    assert torch.equal(table.view(4, 6, 16)[:, :1, :8].expand(-1, 6, -1), table.view(4, 6, 16)[..., :8])
    assert torch.equal(table.view(4, 6, 16)[:1, :, 8:].expand(4, -1, -1), table.view(4, 6, 16)[..., 8:])
    angles = torch.tensor([1.0, 0.1, 0.01, 0.001])  # of row 1, column 0
    torch.testing.assert_close(table[6], torch.cat([angles.sin(), angles.cos(), torch.zeros(4), torch.ones(4)]))


def test_permuted_records_give_permuted_answers() -> None:
    model, image, mask = made(), images(), masks()
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(model(image[order], mask[order]), model(image, mask)[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(image[2:3], mask[2:3]), model(image, mask)[2:3], rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (made(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert not any("position" in name for name in first)  # fixed, so no part of the weights


def test_blocks_run_in_order_and_hold_every_parameter_once() -> None:
    model, seen = made(), []
    parts = model.blocks()
    assert len(parts) == 1 + 2 + 1 + 2 + 1
    held = [id(parameter) for part in parts for parameter in part.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    for index, part in enumerate(parts):
        part.register_forward_hook(lambda *_, index=index: seen.append(index))
    model(images(), masks())
    assert seen == list(range(7))


def trained(steps: int) -> tuple[MaskedAutoencoder, list[float]]:
    """A tiny one on eight images, and its error on the hidden pixels at each step."""
    model = made(patch=4, width=64, depth=1, decoder_width=64)
    image = images(8)
    mask = torch.rand(8, 6, generator=Rng(3).torch()).argsort(1) < 3
    hidden = pixel_mask(mask, SHAPE, 4).expand_as(image)
    optimizer, errors = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0), []
    with determinism(1):
        for _ in range(steps):
            error = (model(image, mask) - image)[hidden].square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.item())
    return model, errors


def test_a_tiny_one_learns_eight_images_by_heart() -> None:
    _, errors = trained(100)
    assert errors[-1] < errors[0] / 10


def test_training_is_deterministic() -> None:
    (one, errors), (other, again) = trained(4), trained(4)
    assert errors == again
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 3}, "patches: got patches of 3×3 and records of shape (3, 8, 12), expected images"),
        ({"shape": (3, 8, 0)}, "patches: got patches of 2×2 and records of shape (3, 8, 0), expected images"),
        ({"patch": 0}, "patch: got 0, expected 1 or more"),
        ({"depth": 0}, "depth: got 0, expected 1 or more"),
        ({"decoder_depth": 0}, "decoder depth: got 0, expected 1 or more"),
        ({"heads": 3}, "width: got 32, expected a multiple of 4 and of the 3 heads"),
        ({"decoder_width": 20, "heads": 8}, "decoder width: got 20, expected a multiple of 4 and of the 8 heads"),
        ({"width": 6, "heads": 2}, "width: got 6, expected a multiple of 4 and of the 2 heads"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        made(**changes)


def test_masks_and_images_that_do_not_fit() -> None:
    model, image, mask = made(), images(), masks()
    uneven = mask.clone()
    uneven[0] = ~uneven[0]
    cases = [
        (image, uneven, "records that hide 10, 14 patches"),
        (image, torch.zeros_like(mask), "0 of 24 patches hidden"),
        (image, torch.ones_like(mask), "24 of 24 patches hidden"),
        (image, mask[:, 1:], "a mask of shape (5, 23)"),
        (image[:, :2], mask, "images of shape (2, 8, 12)"),
        (image[:0], mask[:0], "no record"),
    ]
    for given_image, given_mask, message in cases:
        for call in (model, model.encode):
            with pytest.raises(BadInput, match=re.escape(message)):
                call(given_image, given_mask)


def test_pieces_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match="got patches of 5×5"):
        patches(images(), 5)
    with pytest.raises(BadInput, match=re.escape("(24, 12) per record")):
        assembled(torch.zeros(2, 23, 12), SHAPE, 2)
    with pytest.raises(BadInput, match="got 23 patches, expected 24"):
        pixel_mask(masks()[:, 1:], SHAPE, 2)
