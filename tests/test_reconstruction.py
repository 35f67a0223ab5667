"""Masked reconstruction against formulas worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest.data.breast_cancer import BreastCancer
from palimpsest.errors import BadInput
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import blocks
from palimpsest.models.masked_autoencoder import MaskedAutoencoder
from palimpsest.models.mlp import Mlp
from palimpsest.reconstruction import Reconstruction, drawn_masks, pixel_mask
from palimpsest.rng import Rng
from palimpsest.task import Classification, as_classification, check_task, predict
from palimpsest.types import Batch, Split
from palimpsest.unlearn.fisher import Fisher
from palimpsest.verify.accuracy import Accuracy

SMALL = MaskedAutoencoder(patch=2, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1)


class Constant(nn.Module):
    """Every pixel at one value, which is a weight."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.value.expand_as(image)


@pytest.fixture(scope="module")
def posed(digits: Split) -> tuple[Reconstruction, Split]:
    task = Reconstruction.of(digits, 2, 0.5)
    return task, task.prepare(digits)


@pytest.fixture
def batch(posed: tuple[Reconstruction, Split]) -> Batch:
    return posed[1].train.batch(torch.arange(5))


def test_masks_follow_from_ids_alone(digits: Split, posed: tuple[Reconstruction, Split]) -> None:
    task, split = posed
    masks = split.train.raw("mask")
    assert masks.dtype == torch.bool
    assert (masks.sum(1) == 8).all()
    few = task.prepare(replace(digits, train=digits.train.take([7, 3]), validation=digits.validation.take([0])))
    assert torch.equal(few.train.raw("mask"), masks[[7, 3]])
    assert len({tuple(row) for row in masks.tolist()}) > 0.9 * len(masks)
    shares = masks.float().mean(0)
    assert (shares - 0.5).abs().max() < 0.08  # every place is hidden about as often
    joined = torch.stack([masks[:, 0], masks[:, 1]]).float()
    assert abs(float(torch.corrcoef(joined)[0, 1]) + 1 / 15) < 0.08  # without replacement, and no more


def test_parts_of_one_base_share_the_masks_and_the_fingerprint_tells(digits: Split) -> None:
    task = Reconstruction.of(digits, 2)
    split = task.prepare(digits)
    assert split.train.inputs["mask"] is split.test.inputs["mask"]
    assert split.train.inputs["image"] is digits.train.inputs["image"]
    others = [replace(task, hidden=0.25), Reconstruction.of(digits, 4)]
    marks = {split.fingerprint, digits.fingerprint, *(other.prepare(digits).fingerprint for other in others)}
    assert len(marks) == 4
    assert split.shape == digits.shape


def test_a_mask_is_drawn_without_regard_to_the_others() -> None:
    ids = np.array([f"a/{place}" for place in range(50)])
    one = drawn_masks(ids, 64, 20)
    assert (one.sum(1) == 20).all()
    np.testing.assert_array_equal(one[::7], drawn_masks(ids[::7], 64, 20))


def test_loss_is_the_squared_error_of_hidden_pixels(posed: tuple[Reconstruction, Split], batch: Batch) -> None:
    task, model = posed[0], Constant(0.25)
    image, where = batch.inputs["image"], pixel_mask(batch.inputs["mask"], (1, 8, 8), 2)
    expected = torch.stack([(image[i][where[i]] - 0.25).square().mean() for i in range(5)])
    torch.testing.assert_close(task.loss(model, batch, reduction="none"), expected)
    torch.testing.assert_close(task.loss(model, batch), expected.mean())
    torch.testing.assert_close(task.error(model, batch), expected)
    drawn = task.outputs(model, batch)
    assert torch.equal(drawn[~where], image[~where])
    assert (drawn[where] == 0.25).all()
    torch.testing.assert_close(task.loss_of(drawn, image, reduction="none"), expected)
    torch.testing.assert_close(task.divergence(drawn, image), expected)


def test_targets_that_are_images_are_what_is_learnt(posed: tuple[Reconstruction, Split], batch: Batch) -> None:
    task, model = posed[0], Constant(0.25)
    noise = task.randomise(batch.targets, Rng(0).torch())
    assert noise.shape == (5, 1, 8, 8)
    assert noise.min() >= 0
    assert noise.max() <= 1
    many = task.randomise(torch.zeros(400), Rng(1).torch())
    assert abs(float(many.mean()) - 0.5) < 0.01
    where = pixel_mask(batch.inputs["mask"], (1, 8, 8), 2)
    expected = torch.stack([(noise[i][where[i]] - 0.25).square().mean() for i in range(5)])
    torch.testing.assert_close(task.loss(model, batch.with_targets(noise), reduction="none"), expected)


@pytest.mark.parametrize(("value", "sign"), [(1.5, 1.0), (-0.5, -1.0)])
def test_answers_beyond_the_range_are_clamped_and_still_told_the_way(
    posed: tuple[Reconstruction, Split], batch: Batch, value: float, sign: float
) -> None:
    task, model = posed[0], Constant(value)
    drawn = task.outputs(model, batch)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    task.loss(model, batch).backward()
    assert model.value.grad is not None
    assert float(model.value.grad) * sign > 0


def test_distillation_is_the_distance_of_answers(posed: tuple[Reconstruction, Split], batch: Batch) -> None:
    student, teacher = Constant(0.5), Constant(0.25)
    loss = posed[0].distillation(student, teacher, batch, 1.0)
    assert loss.item() == pytest.approx(0.0625)
    loss.backward()
    assert student.value.grad is not None
    assert teacher.value.grad is None


def test_the_fill_is_the_mean_of_what_is_seen(posed: tuple[Reconstruction, Split], batch: Batch) -> None:
    where = pixel_mask(batch.inputs["mask"], (1, 8, 8), 2)
    image, filled = batch.inputs["image"], posed[0].fill(batch)
    for i in range(5):
        torch.testing.assert_close(filled[i][where[i]], image[i][~where[i]].mean().expand(32))
        assert torch.equal(filled[i][~where[i]], image[i][~where[i]])


def test_a_model_learns_and_answers_images(digits: Split, posed: tuple[Reconstruction, Split]) -> None:
    task, split = posed
    records = split.train.take(list(range(400)))
    trained = Plain().fit(task, records, Recipe(epochs=8, batch_size=32, optimizer="adamw", lr=3e-3), SMALL, rng=Rng(0))
    answers = predict(task, trained.model, split.test.take(list(range(50))))
    assert answers.shape == (50, 1, 8, 8)
    seen = split.test.take(list(range(50))).batch()
    mine = task.loss(trained.model, seen)
    assert mine.item() < 0.75 * task.loss_of(task.fill(seen), seen.inputs["image"]).item()
    assert len(blocks(trained.model)) == 5
    assert trained.model.encode(seen.inputs["image"], seen.inputs["mask"]).shape == (50, 8, 16)  # type: ignore[operator]
    again = SMALL.build(task, Rng(3)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in SMALL.build(task, Rng(3)).state_dict().items())


def test_normalisation_is_inside_and_undone(posed: tuple[Reconstruction, Split], batch: Batch) -> None:
    model = SMALL.build(posed[0], Rng(0))
    image, mask = batch.inputs["image"], batch.inputs["mask"]
    with torch.no_grad():
        inner = model.network((image - 0.5) / 0.25, mask)  # type: ignore[operator]
        torch.testing.assert_close(model(image, mask), inner * 0.25 + 0.5)


def test_another_task_is_refused_in_one_line(digits: Split, posed: tuple[Reconstruction, Split]) -> None:
    task, split = posed
    with pytest.raises(BadInput, match="mlp: got the task reconstruction, expected the task classification"):
        Mlp().build(task, Rng(0))
    with pytest.raises(BadInput, match="masked_autoencoder: got the task classification, expected reconstruction"):
        SMALL.build(Classification.of(digits), Rng(0))
    with pytest.raises(BadInput, match="expected reconstruction of patches of 4"):
        MaskedAutoencoder().build(task, Rng(0))
    for member in (Accuracy(), Fisher()):
        with pytest.raises(BadInput, match="got a model of the task reconstruction, expected one of the task class"):
            check_task(member, task.name)
    with pytest.raises(BadInput, match="label_smoothing"):
        task.loss(Constant(0.5), split.train.batch(torch.arange(2)), label_smoothing=0.1)
    with pytest.raises(BadInput, match="me: got the task reconstruction"):
        as_classification(task, "me")


@pytest.mark.parametrize(
    ("patch", "hidden", "match"), [(3, 0.5, "patches of 3×3"), (4, 0.01, "0 of 4 patches"), (4, 0.99, "4 of 4 patches")]
)
def test_patches_that_do_not_fit_are_refused(digits: Split, patch: int, hidden: float, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        Reconstruction.of(digits, patch, hidden)


def test_features_are_refused() -> None:
    with pytest.raises(BadInput, match="got features records, expected images"):
        SMALL.task(BreastCancer().load())
