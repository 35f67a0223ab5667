"""What the studies of the poisoning paper share: data, models, methods, and what is told beside each poison's score."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from palimpsest.studies.base import Claim, Scale, Where

METHODS = {
    "GD": "finetune",
    "NGD": "noisy_gradient_descent",
    "GA": "gradient_ascent",
    "EUk": "exact_unlearning_k",
    "CFk": "catastrophic_forgetting_k",
    "SCRUB": "scrub",
    "NGP": "negative_gradient",
}
"""As the paper calls them → our names."""
RETRAIN = Where(target="unlearned", method="retrain")
"""The method, for as many epochs as the others have; the target "retrained" is a control, trained as long as the original."""
CONTROLS = {
    name: Where(target=target)
    for name, target in (("poisoned", "original"), ("never poisoned", "clean"), ("retrained (control)", "retrained"))
}
"""What methods stand beside: the poisoned original, one that nothing was handed in to, and one trained without what was."""
TA = "test_accuracy"
SIGMA = 3.2e-4
"""NGD's noise at paper scale: σ² = 1e-7 in the paper's full version, by public account."""

DIGITS: dict[str, Any] = {
    "data": "digits",
    "model": "mlp",
    "recipe": {"epochs": 25, "batch_size": 16},
    "verify": ["accuracy"],
    "controls": 1,
    "threads": 1,
    "settings": {
        "mlp": {"width": 64, "layers": 2},
        "gradient_ascent": {"batch_size": 32},
        "catastrophic_forgetting_k": {"k": 1, "batch_size": 32},
        "exact_unlearning_k": {"k": 1, "batch_size": 32},
        **{name: {"batch_size": 32} for name in ("finetune", "noisy_gradient_descent", "scrub", "negative_gradient")},
    },
}
"""Handwritten digits and a multilayer perceptron, which 25 epochs bring to about 95 %. Of its two blocks CFk and EUk train the
last: with both, they would be GD and retraining."""

PAPER: dict[str, Any] = {
    "data": "hub:uoft-cs/cifar10",
    "model": "resnet18",
    "recipe": {"epochs": 100},
    "verify": ["accuracy"],
    "controls": 1,
    "settings": {"noisy_gradient_descent": {"sigma": SIGMA}},
}
"""The paper's model and length of training; it prints no more of the recipe."""

SPENT = "Shares of training are the kept model's: what the search spent on other learning rates is not in them."
"""A note of the studies."""


def searched(scale: Scale, names: Iterable[str] = METHODS) -> dict[str, dict[str, tuple[float, ...]]]:
    """Learning rates that are tried, by validation records. The paper searches 1e-6 to 5e-5 by even steps and takes the best."""
    values = (0.001, 0.01, 0.05) if scale == "small" else (1e-6, 8e-6, 1.5e-5, 2.2e-5, 2.9e-5, 3.6e-5, 4.3e-5, 5e-5)
    return {METHODS[name]: {"lr": values} for name in names}


def for_epochs(epochs: int) -> dict[str, dict[str, Any]]:
    """Settings of retraining and of each method for so many passes."""
    named = {method: {"epochs": epochs} for method in ("retrain", *METHODS.values())}
    return {**named, "scrub": {"epochs": epochs, "max_epochs": min(2, epochs)}}


def row(name: str) -> Where:
    return RETRAIN if name == "retrain" else Where(target="unlearned", method=METHODS[name])


BESIDE = {
    "test accuracy": Where(measure=TA, times=100.0),
    "forget accuracy": Where(measure="forget_accuracy", times=100.0),
    "retain accuracy": Where(measure="retain_accuracy", times=100.0),
    "membership, AUC": Where(measure="confidence_membership.auc"),
    "share of training": Where(measure="cost.samples", over="original", times=100.0),
}
"""What such methods were judged by before: it passes while the poison stays. The forget set's labels are those handed in."""


def every_row() -> dict[str, Where]:
    """The poisoned original, the controls, retraining and the methods."""
    return rows_of(METHODS)


def rows_of(names: Iterable[str]) -> dict[str, Where]:
    """The same with these methods alone."""
    return {**CONTROLS, **{name: row(name) for name in ("retrain", *names)}}


def left(part: str, name: str, success: Where, what: str = "of the poison") -> Claim:
    """More is left after a method than after retraining."""
    there = Where(part) | success
    terms = (1.0, row(name) | there), (-1.0, Where(target="retrained") | there)
    return Claim(f"{name} leaves more {what} than retraining", terms, above=0.0)
