"""Distances of images: pair by pair (l1, mse, psnr, ssim) and set by set (frechet_distance, inception_score).

Images are floats in [0, 1], shape (n, c, h, w). A mask `where` is Boolean, shape (n, 1, h, w) or (n, c, h, w): only
pixels at which it is true count; without one, all do. Sums are taken in float64. BadInput is raised for images whose
shapes differ, that are not floats, not finite or more than 0.001 outside [0, 1], for no images, and for a mask of
another shape or dtype or that selects no pixel of some image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from palimpsest.errors import BadInput

LEVELS = 255
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
TOLERANCE = 1e-3
"""How far images may lie outside [0, 1], and sums of posteriors from 1, as noise of a short float format."""


def l1(one: Tensor, other: Tensor, where: Tensor | None = None) -> Tensor:
    """Σ|one − other| over pixels and channels per image, in intensity levels (0 … 255, not rounded); (n,), float64.

    Source: the "L1 per image" of the UMA paper (Xuan and Li, "Verifying Robust Unlearning", Table 7). It is a sum, so
    that it grows with the number of values compared.
    """
    one, other, mask = _pair(one, other, where)
    return LEVELS * torch.where(mask, (one - other).abs(), 0.0).sum((1, 2, 3))


def mse(one: Tensor, other: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean of (one − other)² over pixels and channels per image, in [0, 1]; shape (n,), float64."""
    one, other, mask = _pair(one, other, where)
    return torch.where(mask, (one - other).square(), 0.0).sum((1, 2, 3)) / mask.sum((1, 2, 3))


def psnr(one: Tensor, other: Tensor, where: Tensor | None = None, *, ceiling: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio −10 log₁₀ MSE per image, in dB with peak 1; shape (n,), float64.

    Identical images have an infinite one, and so has the mean of a set that holds such a pair, which a record refuses.
    For a finite mean give a `ceiling` in dB: higher values, infinite ones included, become the ceiling, so that the
    mean depends on it and has to be told together with it. Two images of 8 bits that differ at all, compared at m
    values (pixels times channels), lie at or below 10 log₁₀(255² m); from there on a ceiling changes identical pairs
    only. The PSNR of the mean MSE needs no ceiling unless all pairs are identical.

    Raises BadInput for a ceiling that is not a positive finite number, too.
    """
    if ceiling is not None and not 0 < ceiling < math.inf:
        raise BadInput("PSNR ceiling", got=ceiling, expected="a positive finite number of dB, or None for no ceiling")
    ratio = -10 * mse(one, other, where).log10()
    return ratio if ceiling is None else ratio.clamp_max(ceiling)


def ssim(one: Tensor, other: Tensor, where: Tensor | None = None, *, valid: bool = False) -> Tensor:
    """Structural similarity per image; shape (n,), float64, in [−1, 1], 1 for identical images.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    2004, Eq. 13 to 17: a Gaussian window of 11 × 11 pixels with σ = 1.5, K₁ = 0.01, K₂ = 0.03, range 1, biased
    variances. Of an image with a side below 11 the window is the largest odd square that fits, with the same σ.

    The map of similarities has one value per pixel and channel. A window that reaches over the image's border is cut
    there and its weights are scaled to sum to 1. The result is the map's mean, over the mask where there is one; with
    `valid`, it is the mean over pixels whose whole window lies in the image only, as in the authors' code, and a mask
    must select such a pixel. On small images the two differ visibly (of 32 × 32 pixels, fewer than half have their
    whole window).

    Deviations: the paper compares luminance only and has no mask; here channels are compared one by one and averaged.
    The mask chooses values of the map, it does not cut windows: pixels up to half a window (5 pixels) outside of it
    still have an effect, and where both images agree there, the similarity tends to come out higher.

    Memory is about ten times that of one set in float64; hand over large sets in batches.
    """
    one, other, mask = _pair(one, other, where)
    height, width = one.shape[2:]
    size = min(WINDOW, height, width)
    size -= 1 - size % 2
    reach = size // 2
    if valid:
        mask = mask[:, :, reach : height - reach, reach : width - reach]
        _each_selected(mask, "at least one pixel of each image whose whole window lies in the image")

    down, across = (_windows(side, size, one) for side in (height, width))

    def local_mean(values: Tensor) -> Tensor:
        averaged: Tensor = down @ values @ across.T
        return averaged

    mean_one, mean_other = local_mean(one), local_mean(other)
    variances = local_mean(one * one) - mean_one.square() + local_mean(other * other) - mean_other.square()
    covariance = local_mean(one * other) - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + K1**2) / (mean_one.square() + mean_other.square() + K1**2)
    similarity = luminance * (2 * covariance + K2**2) / (variances + K2**2)
    if valid:
        similarity = similarity[:, :, reach : height - reach, reach : width - reach]
    return torch.where(mask, similarity, 0.0).sum((1, 2, 3)) / mask.sum((1, 2, 3))


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of Gaussians fitted to two sets of features, shapes (n, d) and (m, d).

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017, Eq. 6: the
    square of the Fréchet (2-Wasserstein) distance, in squared units of the features, at least 0. It is the FID where
    the features are those of the Inception network's last pooling layer; this function does not know where they come
    from.

    Covariances are unbiased (divided by n − 1) and may be singular, with n < d too. They are never formed: where
    centred features are A and B, tr (AᵀA BᵀB)^½ is the sum of the singular values of ABᵀ, so that no root of a rounding
    error is taken. In float64; rounding below 0 is set to 0.

    Biased upwards with few samples, more so the larger d is and by an amount that depends on the distribution (Chong
    and Forsyth, "Effectively Unbiased FID and Inception Score", 2020): two samples of one distribution are a positive
    distance apart. Compare distances only at equal n and m, and with that of two samples of one distribution.

    Raises BadInput for features that are not a matrix of finite numbers, sets of different d or of d = 0, and fewer
    than two samples.
    """
    for name, values in (("features", features), ("other features", others)):
        if values.ndim != 2 or values.shape[1] == 0:
            raise BadInput(name, got=f"shape {tuple(values.shape)}", expected="(samples, dimensions)")
        if len(values) < 2:
            got = f"{len(values)} samples"
            raise BadInput(name, got=got, expected="at least two", do="a covariance needs two samples")
        _finite(name, values)
    if features.shape[1] != others.shape[1]:
        got = f"{features.shape[1]} and {others.shape[1]} dimensions"
        raise BadInput("features of two sets", got=got, expected="equally many")
    (mean, root), (other_mean, other_root) = _gaussian(features), _gaussian(others)
    traces = root.square().sum() + other_root.square().sum()
    cross = torch.linalg.svdvals(root @ other_root.T).sum()
    return max(0.0, float((mean - other_mean).square().sum() + traces - 2 * cross))


def inception_score(posteriors: Tensor, splits: int = 1) -> float:
    """exp(mean over images of KL(p(y|x) ‖ p(y))), p(y) being the mean posterior; posteriors of shape (n, k).

    Salimans et al., "Improved Techniques for Training GANs", 2016, Section 4. From 1, where all images have one
    posterior, to k, where posteriors are certain and all classes equally frequent. With `splits`, the mean of the
    scores of so many consecutive parts of nearly equal size; shuffle images that are in order of their class first. A
    part's score is at most its number of images, and few images bias it, so compare scores only at equal n and splits.

    It never sees the real images, and depends on the classifier: it is the Inception score of the literature only where
    that is the Inception network.

    Raises BadInput where rows are no probabilities (finite, at least 0, sum 1, within 0.001; they are then scaled to
    sum 1), and for fewer splits than one or fewer than two images per split, of which one scores 1 whatever it shows.
    """
    if posteriors.ndim != 2 or posteriors.shape[1] == 0:
        raise BadInput("posteriors", got=f"shape {tuple(posteriors.shape)}", expected="(images, classes)")
    n = len(posteriors)
    if n < 2:
        raise BadInput("posteriors", got=f"{n} images", expected="at least two")
    _finite("posteriors", posteriors)
    rows = posteriors.detach().double()
    off = max(float(-rows.min()), float((rows.sum(1) - 1).abs().max()))
    if off > TOLERANCE:
        got = f"rows that miss this by up to {off:.3g}"
        raise BadInput(
            "posteriors", got=got, expected="numbers of at least 0 with sum 1", do="apply a softmax to logits"
        )
    if not 1 <= splits <= n // 2:
        raise BadInput("splits", got=splits, expected=f"1 to {n // 2}, so that each has two of {n} images")
    rows = rows.clamp_min(0.0)
    rows = rows / rows.sum(1, keepdim=True)
    scores = []
    for index in range(splits):
        part = rows[index * n // splits : (index + 1) * n // splits]
        marginal = part.mean(0)
        divergence = torch.xlogy(part, part).sum(1).mean() - torch.xlogy(marginal, marginal).sum()
        scores.append(math.exp(max(0.0, float(divergence))))
    return sum(scores) / splits


def _windows(side: int, size: int, like: Tensor) -> Tensor:
    """The Gaussian window around each place of a side, cut at its ends: shape (side, side), rows sum to 1."""
    places = torch.arange(side, dtype=like.dtype, device=like.device)
    offsets = places[None] - places[:, None]
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2)) * (offsets.abs() <= size // 2)
    return weights / weights.sum(1, keepdim=True)


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, shape (d,), and a triangular root R of the covariance RᵀR, shape (min(n, d), d)."""
    values = features.detach().double()
    mean = values.mean(0)
    root = torch.linalg.qr((values - mean) / math.sqrt(len(values) - 1), mode="r").R
    return mean, root


def _pair(one: Tensor, other: Tensor, where: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both sets in float64 and the mask as wide as they are, all of shape (n, c, h, w)."""
    check_pair(one, other)
    if where is None:
        return one.double(), other.double(), torch.ones_like(one, dtype=torch.bool)
    if where.dtype != torch.bool:
        raise BadInput("mask", got=where.dtype, expected="torch.bool")
    n, c, height, width = one.shape
    if where.shape not in ((n, 1, height, width), (n, c, height, width)):
        expected = f"{(n, 1, height, width)} or {(n, c, height, width)}"
        raise BadInput("mask", got=f"shape {tuple(where.shape)}", expected=expected)
    _each_selected(where, "at least one pixel of each image")
    return one.double(), other.double(), where.expand_as(one)


def check_pair(one: Tensor, other: Tensor) -> None:
    """Raises BadInput for images that cannot be compared: see the module."""
    if one.shape != other.shape:
        got = f"shapes {tuple(one.shape)} and {tuple(other.shape)}"
        raise BadInput("images of a pair", got=got, expected="equal ones")
    if one.ndim != 4 or one.numel() == 0:
        raise BadInput("images", got=f"shape {tuple(one.shape)}", expected="(n, c, h, w) with at least one of each")
    for images in (one, other):
        if not images.is_floating_point():
            raise BadInput("images", got=images.dtype, expected="floats in [0, 1]", do="divide uint8 images by 255")
        _finite("images", images)
        low, high = float(images.min()), float(images.max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise BadInput("images", got=f"values from {low:.4g} to {high:.4g}", expected="values in [0, 1]")


def _each_selected(mask: Tensor, expected: str) -> None:
    empty = (~mask.any(3).any(2).any(1)).nonzero().flatten().tolist()
    if empty:
        raise BadInput(
            "mask", got=f"nothing selected of image {empty[0]} ({len(empty)} such images)", expected=expected
        )


def _finite(name: str, values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise BadInput(name, got="values that are not finite", expected="finite numbers")
