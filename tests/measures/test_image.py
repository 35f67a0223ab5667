"""Distances of images at known answers: closed forms, slow references, and what a mask leaves out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from palimpsest.errors import BadInput
from palimpsest.measures.image import frechet_distance, inception_score, l1, mse, psnr, ssim
from palimpsest.types import Array

PAIRWISE = [l1, mse, psnr, ssim]
K1, K2 = 0.01, 0.03


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def block(*shape: int) -> Tensor:
    """A mask of the pixels of rows 2 … 4 and columns 1 … 3."""
    mask = torch.zeros(*shape, dtype=torch.bool)
    mask[:, :, 2:5, 1:4] = True
    return mask


# pairs of images


def test_a_constant_offset_has_a_known_distance() -> None:
    one = torch.full((2, 3, 4, 5), 0.25, dtype=torch.float64)
    other = one + f64(0.1, 0.5).view(2, 1, 1, 1)
    torch.testing.assert_close(l1(one, other), f64(255 * 0.1 * 60, 255 * 0.5 * 60))
    torch.testing.assert_close(mse(one, other), f64(0.01, 0.25))
    torch.testing.assert_close(psnr(one, other), f64(20.0, 20 * math.log10(2)))


def test_one_level_at_one_pixel_is_an_l1_of_one() -> None:
    one = torch.zeros(1, 3, 4, 4)
    other = one.clone()
    other[0, 1, 2, 3] = 1 / 255
    torch.testing.assert_close(l1(one, other), f64(1.0))
    torch.testing.assert_close(psnr(one, other), f64(10 * math.log10(255**2 * 48)))


@pytest.mark.parametrize("measure", PAIRWISE)
def test_values_are_per_image_symmetric_and_in_double_precision(measure) -> None:
    one, other = noise(3, 3, 13, 12), noise(3, 3, 13, 12, seed=1)
    found = measure(one, other)
    assert found.shape == (3,)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, measure(other, one))
    torch.testing.assert_close(found, torch.cat([measure(one[i : i + 1], other[i : i + 1]) for i in range(3)]))
    assert found.unique().numel() == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_distances_count_values_inside_the_mask_only(channels: int) -> None:
    one, other, mask = noise(2, 3, 7, 6), noise(2, 3, 7, 6, seed=1), block(2, channels, 7, 6)
    mask[:, 0, 6, 5] = True
    inside = mask.expand(2, 3, 7, 6)
    gaps = [(one[i].double() - other[i].double())[inside[i]] for i in range(2)]
    torch.testing.assert_close(l1(one, other, mask), 255 * torch.stack([gap.abs().sum() for gap in gaps]))
    torch.testing.assert_close(mse(one, other, mask), torch.stack([gap.square().mean() for gap in gaps]))


@pytest.mark.parametrize("measure", [l1, mse, psnr])
def test_changes_outside_the_mask_have_no_effect(measure) -> None:
    one, other, mask = noise(2, 3, 7, 6), noise(2, 3, 7, 6, seed=1), block(2, 1, 7, 6)
    changed = torch.where(mask, other, noise(2, 3, 7, 6, seed=2))
    assert (measure(one, changed) != measure(one, other)).all()
    assert measure(one, changed, mask).equal(measure(one, other, mask))


@pytest.mark.parametrize("valid", [False, True])
def test_changes_more_than_half_a_window_outside_the_mask_have_no_effect_on_ssim(valid: bool) -> None:
    one, other = noise(2, 3, 24, 23), noise(2, 3, 24, 23, seed=1)
    mask, near = torch.zeros(2, 1, 24, 23, dtype=torch.bool), torch.zeros(2, 1, 24, 23, dtype=torch.bool)
    mask[:, :, 8:12, 9:13], near[:, :, 3:17, 4:18] = True, True
    elsewhere = noise(2, 3, 24, 23, seed=2)
    before = ssim(one, other, mask, valid=valid)
    torch.testing.assert_close(ssim(one, torch.where(near, other, elsewhere), mask, valid=valid), before)
    assert (ssim(one, torch.where(mask, other, elsewhere), mask, valid=valid) - before).abs().min() > 1e-3
    near[:, :, 3] = False  # the outermost row that a window still reaches
    assert (ssim(one, torch.where(near, other, elsewhere), mask, valid=valid) - before).abs().min() > 1e-7


@pytest.mark.parametrize("measure", PAIRWISE)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_full_mask_is_no_mask(measure, channels: int) -> None:
    one, other = noise(2, 3, 12, 13), noise(2, 3, 12, 13, seed=1)
    assert measure(one, other, torch.ones(2, channels, 12, 13, dtype=torch.bool)).equal(measure(one, other))


def test_identical_images_have_an_infinite_psnr_unless_a_ceiling_is_given() -> None:
    one = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    other = one + f64(0.0, 1e-6, 0.1).view(3, 1, 1, 1)
    torch.testing.assert_close(psnr(one, other), f64(math.inf, 120.0, 20.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(psnr(one, other, ceiling=60.0), f64(60.0, 60.0, 20.0))


@pytest.mark.parametrize("ceiling", [0.0, -1.0, math.inf, math.nan])
def test_a_ceiling_that_is_none_is_refused(ceiling: float) -> None:
    with pytest.raises(BadInput, match="ceiling"):
        psnr(noise(1, 1, 3, 3), noise(1, 1, 3, 3), ceiling=ceiling)


# structural similarity


def slow_ssim_map(one: Array, other: Array, size: int) -> Array:
    """One channel, one window at a time; windows are cut at the border."""
    height, width, reach = *one.shape, size // 2
    found = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            weights, xs, ys = [], [], []
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    i, j = row + down, column + right
                    if 0 <= i < height and 0 <= j < width:
                        weights.append(math.exp(-(down**2 + right**2) / (2 * 1.5**2)))
                        xs.append(one[i, j])
                        ys.append(other[i, j])
            w, x, y = np.array(weights) / sum(weights), np.array(xs), np.array(ys)
            a, b = (w * x).sum(), (w * y).sum()
            va, vb, cov = (w * (x - a) ** 2).sum(), (w * (y - b) ** 2).sum(), (w * (x - a) * (y - b)).sum()
            found[row, column] = ((2 * a * b + K1**2) * (2 * cov + K2**2)) / ((a**2 + b**2 + K1**2) * (va + vb + K2**2))
    return found


@pytest.mark.parametrize(
    ("height", "width", "size"), [(14, 13, 11), (11, 16, 11), (10, 12, 9), (7, 9, 7), (6, 4, 3), (1, 5, 1)]
)
def test_ssim_is_that_of_a_slow_loop(height: int, width: int, size: int) -> None:
    one = noise(1, 2, height, width)
    other = (0.7 * one + 0.3 * noise(1, 2, height, width, seed=1)).clamp(0, 1)
    expected = np.stack([slow_ssim_map(*(x[0, c].double().numpy() for x in (one, other)), size) for c in range(2)])
    assert float(ssim(one, other)) == pytest.approx(expected.mean(), abs=1e-12)
    reach = size // 2
    whole = expected[:, reach : height - reach, reach : width - reach]
    assert float(ssim(one, other, valid=True)) == pytest.approx(whole.mean(), abs=1e-12)
    for channels in (1, 2):
        mask = noise(1, channels, height, width, seed=2) < 0.4
        mask[:, :, height // 2, width // 2] = True
        inside = mask.expand(1, 2, height, width)[0].numpy()
        assert float(ssim(one, other, mask)) == pytest.approx(expected[inside].mean(), abs=1e-12)
        chosen = inside[:, reach : height - reach, reach : width - reach]
        assert float(ssim(one, other, mask, valid=True)) == pytest.approx(whole[chosen].mean(), abs=1e-12)


@pytest.mark.parametrize("valid", [False, True])
def test_identical_images_are_wholly_similar_and_negatives_less_than_unrelated_ones(valid: bool) -> None:
    one = noise(2, 3, 16, 15)
    torch.testing.assert_close(ssim(one, one, valid=valid), f64(1.0, 1.0))
    assert (ssim(one, 1 - one, valid=valid) < -0.5).all()
    assert (ssim(one, noise(2, 3, 16, 15, seed=1), valid=valid).abs() < 0.3).all()


@pytest.mark.parametrize("valid", [False, True])
def test_ssim_of_constant_images_is_their_luminance_term(valid: bool) -> None:
    a, b = 0.2, 0.7
    one, other = (torch.full((1, 2, 15, 12), level, dtype=torch.float64) for level in (a, b))
    expected = (2 * a * b + K1**2) / (a**2 + b**2 + K1**2)
    assert float(ssim(one, other, valid=valid)) == pytest.approx(expected, abs=1e-12)


def test_a_mask_of_border_pixels_only_is_refused_where_whole_windows_are_asked_for() -> None:
    one, mask = noise(2, 1, 12, 12), torch.ones(2, 1, 12, 12, dtype=torch.bool)
    mask[1, :, 1:] = False
    torch.testing.assert_close(ssim(one, one, mask), f64(1.0, 1.0))
    with pytest.raises(BadInput, match=r"nothing selected of image 1 .*whole window"):
        ssim(one, one, mask, valid=True)


# bad pairs


@pytest.mark.parametrize("measure", PAIRWISE)
@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (torch.ones(2, 3, 4, 4), torch.ones(2, 1, 4, 4), r"\(2, 3, 4, 4\) and \(2, 1, 4, 4\)"),
        (torch.ones(3, 4, 4), torch.ones(3, 4, 4), "expected .n, c, h, w."),
        (torch.ones(0, 3, 4, 4), torch.ones(0, 3, 4, 4), "at least one of each"),
        (torch.ones(1, 3, 4, 0), torch.ones(1, 3, 4, 0), "at least one of each"),
        (torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), math.nan), "not finite"),
        (torch.full((1, 1, 2, 2), math.inf), torch.ones(1, 1, 2, 2), "not finite"),
        (torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 255.0), "values from 255 to 255"),
        (torch.full((1, 1, 2, 2), -1.0), torch.ones(1, 1, 2, 2), "values from -1 to -1"),
        (torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.uint8), "divide uint8 images by 255"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(measure, one: Tensor, other: Tensor, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        measure(one, other)


@pytest.mark.parametrize("measure", PAIRWISE)
@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (torch.ones(2, 2, 4, 4, dtype=torch.bool), r"\(2, 1, 4, 4\) or \(2, 3, 4, 4\)"),
        (torch.ones(1, 1, 4, 4, dtype=torch.bool), "shape"),
        (torch.ones(2, 4, 4, dtype=torch.bool), "shape"),
        (torch.ones(2, 1, 4, 4), "torch.bool"),
        (torch.tensor([True, False]).view(2, 1, 1, 1).repeat(1, 1, 4, 4), "nothing selected of image 1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(measure, mask: Tensor, told: str) -> None:
    one = noise(2, 3, 4, 4)
    with pytest.raises(BadInput, match=told):
        measure(one, one, mask)


def test_float_noise_around_the_range_passes() -> None:
    one = torch.tensor([-3e-8, 1 + 1e-6]).view(1, 1, 1, 2)
    assert float(l1(one, one.clamp(0, 1))) == pytest.approx(255 * 1.03e-6, rel=0.1)


# sets of features


def sample(mean: Array, root: Array, n: int, seed: int = 0) -> Tensor:
    """n vectors whose mean and (unbiased) covariance are exactly `mean` and root rootᵀ."""
    drawn = np.random.default_rng(seed).standard_normal((n, root.shape[1]))
    drawn -= drawn.mean(0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn.T).reshape(root.shape[1], -1)).T)
    return torch.from_numpy(white @ root.T + mean)


def rotation(d: int, seed: int = 0) -> Array:
    turned: Array = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    return turned


def by_sqrtm(one: Tensor, other: Tensor) -> float:
    a, b = one.double().numpy(), other.double().numpy()
    first, second = np.cov(a.T), np.cov(b.T)
    cross = np.trace(scipy.linalg.sqrtm(first @ second)).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * cross)


def test_frechet_distance_in_one_dimension_is_that_of_means_plus_that_of_deviations() -> None:
    one, other = sample(np.array([1.0]), np.array([[2.0]]), 9), sample(np.array([-2.0]), np.array([[0.5]]), 14, seed=1)
    assert frechet_distance(one, other) == pytest.approx(3.0**2 + 1.5**2, abs=1e-10)


def test_frechet_distance_by_hand() -> None:
    """Means 1 and 4; variances of two and three points: ((0 − 1)² + (2 − 1)²)/1 = 2 and (3² + 0 + 3²)/2 = 9."""
    one, other = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [4.0], [7.0]])
    assert frechet_distance(one, other) == pytest.approx(9 + (3 - math.sqrt(2)) ** 2, abs=1e-12)


def test_frechet_distance_of_commuting_covariances() -> None:
    turned, means = rotation(4), (np.arange(4.0), np.array([0.0, 1.0, 0.0, 3.0]))
    deviations = (np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 0.0, 0.5, 1.0]))  # the second one is singular
    one, other = (sample(m, turned * s, 30, seed) for seed, (m, s) in enumerate(zip(means, deviations, strict=True)))
    expected = 4.0 + (1.0 + 4.0 + 0.0 + 4.0)
    assert frechet_distance(one, other) == pytest.approx(expected, abs=1e-10)


def test_frechet_distance_of_other_covariances_is_scipys() -> None:
    draw = np.random.default_rng(3)
    one = sample(draw.standard_normal(5), rotation(5, 1) * np.array([1.0, 2.0, 0.7, 1.4, 3.0]), 40)
    other = sample(draw.standard_normal(5), rotation(5, 2) * np.array([2.0, 0.6, 1.1, 1.0, 0.9]), 25, seed=1)
    first, second = (np.cov(values.numpy().T) for values in (one, other))
    assert np.abs(first @ second - second @ first).max() > 0.1
    assert frechet_distance(one, other) == pytest.approx(by_sqrtm(one, other), rel=1e-9)


def test_fewer_samples_than_dimensions_in_a_subspace_are_as_far_apart_as_in_it() -> None:
    turned = torch.from_numpy(rotation(20)[:3])  # (3, 20), orthonormal rows
    one = sample(np.array([1.0, 0.0, 2.0]), rotation(3, 1) * np.array([1.0, 2.0, 0.5]), 6)
    other = sample(np.zeros(3), rotation(3, 2) * np.array([0.4, 1.0, 3.0]), 8, seed=1)
    assert frechet_distance(one @ turned, other @ turned) == pytest.approx(by_sqrtm(one, other), rel=1e-9)


def test_fewer_samples_than_dimensions_in_general_are_scipys_on_the_smaller_product() -> None:
    """tr (Σ₁Σ₂)^½ = tr (AᵀΣ₂A)^½ where Σ₁ = AAᵀ: with one column of A less than samples, that has full rank."""
    draw = np.random.default_rng(5)
    a, b = draw.standard_normal((6, 30)), 0.5 + 2 * draw.standard_normal((9, 30))
    contrasts = (scipy.linalg.helmert(6) @ a).T / math.sqrt(5)
    second = np.cov(b.T)
    cross = np.trace(scipy.linalg.sqrtm(contrasts.T @ second @ contrasts)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T)) + np.trace(second) - 2 * cross
    found = frechet_distance(torch.from_numpy(a), torch.from_numpy(b))
    assert found == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(torch.from_numpy(b), torch.from_numpy(a)) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(50, 6), (5, 40), (2, 1)])
def test_equal_sets_are_no_distance_apart_and_the_order_does_not_matter(n: int, d: int) -> None:
    one, other = noise(n, d), noise(n + 3, d, seed=1)
    for seed in range(10):  # rounding falls on either side of 0
        drawn = noise(n, d, seed=seed)
        assert 0 <= frechet_distance(drawn, drawn) < 1e-12 * d
        assert 0 <= frechet_distance(drawn, drawn.flip(0)) < 1e-12 * d
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-12)
    assert frechet_distance(one, other) > 1e-3


def test_constant_features_are_as_far_apart_as_their_means() -> None:
    one, other = torch.ones(4, 3), torch.tensor([[1.0, 3.0, 1.0]]).repeat(5, 1)
    assert frechet_distance(one, other) == pytest.approx(4.0, abs=1e-12)


def test_few_samples_of_one_distribution_are_further_apart_than_many() -> None:
    few = frechet_distance(*(torch.randn(20, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1)))
    many = frechet_distance(*(torch.randn(2000, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1)))
    assert few > 10 * many > 0


@pytest.mark.parametrize(
    ("features", "others", "told"),
    [
        (torch.ones(4, 3), torch.ones(4, 2), "3 and 2 dimensions"),
        (torch.ones(1, 3), torch.ones(4, 3), "1 samples.*at least two"),
        (torch.ones(4, 3), torch.ones(0, 3), "other features: got 0 samples"),
        (torch.ones(4, 0), torch.ones(4, 0), "dimensions"),
        (torch.ones(4), torch.ones(4), "dimensions"),
        (torch.ones(4, 3), torch.full((4, 3), math.nan), "other features: got values that are not finite"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(features: Tensor, others: Tensor, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        frechet_distance(features, others)


# posteriors of generated images


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_certain_posteriors_of_all_classes_score_their_number(classes: int) -> None:
    assert inception_score(torch.eye(classes).repeat(3, 1)) == pytest.approx(classes, rel=1e-12)


def test_one_posterior_for_all_images_scores_one() -> None:
    assert inception_score(torch.tensor([[0.2, 0.5, 0.3]]).repeat(7, 1)) == pytest.approx(1.0, abs=1e-12)
    assert inception_score(torch.tensor([[0.0, 1.0, 0.0]]).repeat(7, 1)) == 1.0


def test_inception_score_by_hand() -> None:
    """(3/4, 1/4) and (1/4, 3/4), mean (1/2, 1/2)."""
    expected = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert inception_score(torch.tensor([[0.75, 0.25], [0.25, 0.75]])) == pytest.approx(expected, rel=1e-12)


def test_splits_are_consecutive_and_their_scores_are_averaged() -> None:
    """Eight images in parts of two, three and three: one class, one class, two classes with shares 1/3 and 2/3."""
    posteriors = torch.eye(2)[[0, 0, 1, 1, 1, 0, 1, 1]]
    entropy = math.log(3) - 2 / 3 * math.log(2)
    assert inception_score(posteriors, splits=3) == pytest.approx((1 + 1 + math.exp(entropy)) / 3, rel=1e-12)
    assert inception_score(posteriors) > 1.9


def test_rows_that_nearly_sum_to_one_are_scaled() -> None:
    assert inception_score(torch.eye(3) * 1.0005) == pytest.approx(3.0, rel=1e-12)


@pytest.mark.parametrize(
    ("posteriors", "splits", "told"),
    [
        (torch.tensor([[2.0, -1.0], [0.5, 0.5]]), 1, "softmax"),
        (torch.tensor([[0.5, 0.4], [0.5, 0.5]]), 1, r"up to 0\.1"),
        (torch.tensor([[math.nan, 0.5], [0.5, 0.5]]), 1, "not finite"),
        (torch.ones(0, 2), 1, "0 images"),
        (torch.ones(1, 1), 1, "1 images"),
        (torch.ones(4), 1, "classes"),
        (torch.ones(4, 0), 1, "classes"),
        (torch.eye(4), 0, "splits: got 0, expected 1 to 2"),
        (torch.eye(4), 3, "each has two of 4 images"),
    ],
)
def test_posteriors_that_cannot_be_scored_are_refused(posteriors: Tensor, splits: int, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        inception_score(posteriors, splits)
