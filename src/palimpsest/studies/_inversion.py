"""What the studies of the unlearning inversion paper share: victims, deletions, methods and columns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from palimpsest.measures.perceptual import lpips_available
from palimpsest.studies._uma import merged
from palimpsest.studies.base import Scale, Where

METHODS = {"exact": "retrain", "approximate": "single_gradient"}
"""As the paper calls its kinds of unlearning → our names."""
FEATURES, LABELS = "feature_inversion", "label_inference"
EXTRACTOR = "resnet18"

VICTIM: dict[str, Any] = {
    "learner": "finetuned",
    "recipe": {
        "epochs": 1,
        "batch_size": 128,
        "lr": 0.001,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "constant",
    },
    "unlearn": list(METHODS.values()),
    "verify": ["accuracy"],
    "controls": 1,
    "settings": {"finetuned": {"frozen_norms": True}},
}
"""A model that public records taught, fine-tuned on private ones for an epoch at a constant rate (4.1; Eq. 13 has one η), batch
norm's statistics as they were, as in the paper's code. Where they move, what moves them drowns the gradient of what was deleted."""

STEADY = {"batching": "loop"}
"""Restarts one by one: which way is the faster is timed otherwise, and ways differ by rounding."""

SOFT: dict[str, Any] = {"sharpness": 4.0, "compared": "layers", "total_variation": 0.3}
"""A search that the paper does not have, see `feature_inversion`."""

SMALL: dict[str, Any] = {
    **VICTIM,
    "data": "hub:uoft-cs/cifar10",
    "limit": 10000,
    "model": "convnet",
    "attack": [FEATURES],
    "separate": True,
    "seeds": 3,
    "threads": 1,
    "settings": {
        "hub": {"public": 0.8, "private": 512},
        "convnet": {"width": 8, "places": 3},
        "finetuned": {
            "frozen_norms": True,
            "pretraining_epochs": 15,
            "pretraining_schedule": "one_cycle",
            "pretraining_augment": "flip",
        },
        "accuracy": {"records": 1000},
        FEATURES: {"iterations": 300, "restarts": 1, **SOFT, **STEADY},
    },
}
"""CIFAR-10, 7,200 public images and 512 private ones, the 7-layer network at width 8. Its last pooling leaves 3×3 places, as in
public code of gradient inversion. Its rate rises first: falling linearly from 0.1, as the paper has it, one victim never got above
chance in so few epochs. One descent on a softened network, chosen before any study was run: of twelve exact gradients, 300 such
steps ranked records as high (0.89, PSNR 13.7) as 1,000 of the paper's form did (0.88, 10.6), and 300 of the paper's form lower
(0.79, 10.0)."""

PAPERS_FORM: dict[str, Any] = {
    "iterations": 1000,
    "sharpness": 0.0,
    "compared": "whole",
    "total_variation": 0.01,
}
"""The paper's search, at small scale, with as many steps as that takes."""

SMALL_LABELS: dict[str, Any] = {
    **VICTIM,
    "data": "digits",
    "model": "convnet",
    "attack": [LABELS],
    "seeds": 5,
    "threads": 1,
    "settings": {
        "digits": {"public": 0.6},
        "convnet": {"width": 8},
        "finetuned": {"frozen_norms": True, "pretraining_epochs": 15},
    },
}
"""Digits, about 730 public images and 480 private ones, 48 of a class as in the paper (5.2). A probe that is not accepted is given
up after 25,801 queries."""

_PAPER: dict[str, dict[str, Any]] = {
    "CIFAR-10": {"data": "hub:uoft-cs/cifar10", "model": "convnet"},
    "CIFAR-100": {"data": "hub:uoft-cs/cifar100", "model": "convnet"},
    "STL-10": {"data": "hub:tanganke/stl10", "model": "resnet18"},
}
"""The paper's data sets (4.1) → where they are on the hub, and the model."""


def paper(data: str, **changes: Any) -> dict[str, Any]:
    """The paper's setting of a data set, for the attack on features; the number of seeds is ours, the paper does not say. LPIPS is
    asked for where it is installed."""
    base = {
        **VICTIM,
        **_PAPER[data],
        "attack": [FEATURES],
        "separate": True,
        "seeds": 3,
        "settings": {
            **VICTIM["settings"],
            "hub": {"public": 0.8},
            "convnet": {"width": 64, "places": 3},
            FEATURES: {**STEADY, "lpips": lpips_available()},
        },
    }
    return merged(base, **changes)


def features(scale: Scale, **changes: Any) -> dict[str, Any]:
    """The attack on features of CIFAR-10."""
    return merged(SMALL, **changes) if scale == "small" else paper("CIFAR-10", **changes)


def labels(scale: Scale, **changes: Any) -> dict[str, Any]:
    """The attack on labels: of digits, or of STL-10 with 512 private images (5.2)."""
    base = SMALL_LABELS
    if scale == "paper":
        base = paper("STL-10", attack=[LABELS], separate=False, settings={"hub": {"private": 512}})
    return merged(base, **changes)


def rows(part: str = "", *, kinds: Collection[str] = tuple(METHODS), placebo: bool = True) -> dict[str, Where]:
    """The paper's kinds of unlearning; with `placebo` the controls that it does not have."""
    found = {f"{name} unlearning": Where(part, "unlearned", METHODS[name]) for name in kinds}
    if placebo:
        found |= {f"{name}: placebo": Where(part, "placebo", METHODS[name]) for name in kinds}
        found["known leak"] = Where(part, "known-leak")
    return found


def rows_of(parts: Collection[str]) -> dict[str, Where]:
    """The rows of several audits, without their known leaks."""
    return {
        f"{name}, {part}": where for part in parts for name, where in rows(part).items() if where.target != "known-leak"
    }


def at(measure: str, attack: str = FEATURES) -> Where:
    """A measure of the attack."""
    return Where(measure=f"{attack}.{measure}")


RANK, OVER_COLOUR = at("rank"), at("rank_over_colour")
MSE, PSNR, PERCEPTUAL, LPIPS = at("root_mse"), at("psnr"), at(f"perceptual_{EXTRACTOR}"), at("lpips")
DISTANCES = {"MSE": MSE, "PSNR": PSNR, "perceptual (ResNet-18)": PERCEPTUAL, "LPIPS": LPIPS}
"""As the paper names its measures, its MSE being a root; the third is ours, see `TWO_DISTANCES`."""
COLUMNS = {
    "rank": RANK,
    "rank over mean colour": OVER_COLOUR,
    "identified": at("identified_rate"),
    **DISTANCES,
    "SSIM": at("ssim"),
}
"""Rank of the deleted record among up to 399 unseen ones of its class, 0.5 by chance, and the distances."""

TWO_DISTANCES = (
    "The paper's LPIPS is that of VGG-16. It is measured at the paper's scale alone, where its extra is installed; elsewhere its "
    "column is empty but for what the paper prints. The perceptual distance, in the stages of a ResNet-18 that was trained on the "
    "public images, is not LPIPS and of another scale: the paper's numbers do not compare with it."
)
PICTURES = "Numbers of this figure stand in the paper's picture at most: its text repeats none."
"""Notes of several studies."""


def drop(label: int) -> Where:
    """How much less probes of a class are answered with it after unlearning: minus the paper's confidence change."""
    return Where(measure=f"{LABELS}.drop", at={"class": float(label)})


DROPS = {f"class {label}": drop(label) for label in range(10)}
ACCURACY = at("accuracy", LABELS)
MARGIN = at("margin", LABELS)


def by_class(where: Where, weight: float = 1.0) -> tuple[tuple[float, Where], ...]:
    """Terms of a claim: the accuracy over ten classes, each deleted alone, as the mean of what it is of each.

    Answers to one class are then counted over victims, and errors of ten classes add up as independent ones. The accuracy itself
    brings the exact interval of ten answers, which ten right ones in every victim leave at 0.59.
    """
    return tuple((weight / 10, where | replace(ACCURACY, at={"class": float(label)})) for label in range(10))
