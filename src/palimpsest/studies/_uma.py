"""What the studies of the UMA paper share: data, models, methods and columns."""

from __future__ import annotations

from typing import Any

from palimpsest import presets
from palimpsest.studies.base import Where

EPSILONS = (8 / 255, 16 / 255)
METHODS = {
    "FT": "finetune",
    "RL": "random_label",
    "IU": "influence",
    "l1-sparse": "l1_sparse",
    "SalUn": "salun",
}
"""As the paper calls them → our names."""

SMALL: dict[str, Any] = {
    "data": "hub:uoft-cs/cifar10",
    "limit": 10000,
    "model": "resnet18",
    "recipe": {"epochs": 15, "lr": 0.2},
    "attack": ["uma"],
    "verify": ["accuracy"],
    "seeds": 1,
    "controls": 1,
    "threads": 2,
    "settings": {
        "resnet18": {"width": 16},
        "finetune": {"lr": 0.04, "epochs": 4, "batch_size": 64},
        "random_label": {"lr": 0.03, "epochs": 3, "batch_size": 128},
        "l1_sparse": {"lr": 0.04, "epochs": 4, "batch_size": 64, "alpha": 0.00005},
        "salun": {"lr": 0.03, "epochs": 3, "batch_size": 128},
        "influence": {"alpha": 5, "damping": 1.0},
        "uma": {"epsilon": EPSILONS, "steps": 100, "records": 500},
    },
}
"""CIFAR-10, 10,000 images, ResNet-18 of width 16; the methods' settings were chosen for this size before any study was run."""

DATA = {"CIFAR-10": "uma-cifar10", "CIFAR-100": "uma-cifar100", "Tiny-ImageNet": "uma-tiny-imagenet"}
"""The paper's data sets → the preset that has its classes (5.1) and sizes."""
RECORDS = {"CIFAR-10": 5000, "CIFAR-100": 5000, "Tiny-ImageNet": 10000}
"""Random records that are forgotten instance-wise (5.1)."""


def paper(data: str) -> dict[str, Any]:
    """The paper's setting of a data set. It prints neither its training recipe nor the methods' settings: those of the methods are
    our defaults, which are the public code's."""
    return presets.read(DATA[data]).model_dump(exclude_unset=True, exclude={"about", "scale"})


UA, MIA, TA = "uma.forget_accuracy", "uma.mia_member_rate", "test_accuracy"

COLUMNS = {
    "TA": Where(measure=TA, times=100.0),
    "UA": Where(measure=UA, at={"epsilon": 0.0}, times=100.0),
    "MIA": Where(measure=MIA, at={"epsilon": 0.0}),
    "UA 8/255": Where(measure=UA, at={"epsilon": EPSILONS[0]}, times=100.0),
    "MIA 8/255": Where(measure=MIA, at={"epsilon": EPSILONS[0]}),
    "UA 16/255": Where(measure=UA, at={"epsilon": EPSILONS[1]}, times=100.0),
    "MIA 16/255": Where(measure=MIA, at={"epsilon": EPSILONS[1]}),
}
"""The columns of Tables 1, 2, 4, 5 and 6."""


COST = {
    "gradients, thousands": Where(measure="cost.samples", times=0.001),
    "seconds": Where(measure="cost.seconds"),
}
"""What unlearning cost: records passed forward and backward, those of attacks included, and time on this machine."""


def unlearned(method: str, part: str = "") -> Where:
    return Where(part, "unlearned", METHODS.get(method, method))


def forget_accuracy(epsilon: int, of: Where) -> Where:
    """UA under UMA at ε = epsilon/255 (0: unattacked)."""
    return of | Where(measure=UA, at={"epsilon": {0: 0.0, 8: EPSILONS[0], 16: EPSILONS[1]}[epsilon]})


def test_accuracy(of: Where) -> Where:
    """TA."""
    return of | Where(measure=TA)


def rows(*, matched: bool) -> dict[str, Where]:
    """The paper's rows; with `matched` each method's bias-matched control after it, which the paper does not have."""
    found = {"Original": Where(target="original"), "retrain": Where(target="retrained")}
    for name, method in METHODS.items():
        found[name] = Where(target="unlearned", method=method)
        if matched:
            found[f"{name}: bias-matched"] = Where(target="bias-matched", method=method)
    return found


def merged(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """`base` with fields replaced; settings are merged part by part."""
    settings = {name: dict(fields) for name, fields in base.get("settings", {}).items()}
    for name, fields in changes.pop("settings", {}).items():
        settings[name] = {**settings.get(name, {}), **fields}
    return {**base, **changes, "settings": settings}
