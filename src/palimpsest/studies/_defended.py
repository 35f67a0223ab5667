"""What Figures 11 and 12 and Table 4 of the inversion paper share: approximate unlearning behind each of three defences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.studies._inversion import METHODS, features
from palimpsest.studies.base import Scale, Where

BARE = METHODS["approximate"]
SETTINGS: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "parameter obfuscation": ("parameter_noise", "sigma", (0.001, 0.003, 0.005, 0.007)),
    "model pruning": ("pruning", "share", (0.7, 0.8, 0.9)),
    "fine-tuning": ("finetuning", "lr", (0.0001, 0.0005, 0.001, 0.005, 0.01)),
}
"""As the paper calls a defence → our name, its setting, and the values that it tries (section 7)."""
SHORT = {"parameter obfuscation": "σ", "model pruning": "p", "fine-tuning": "lr"}


def part(defence: str, value: float) -> str:
    return f"{SHORT[defence]} {value:g}"


def defended(defence: str, value: float, target: str = "unlearned") -> Where:
    return Where(part(defence, value), target, f"{BARE}+{SETTINGS[defence][0]}")


def undefended(defence: str, value: float) -> Where:
    """Of the same audit."""
    return Where(part(defence, value), "unlearned", BARE)


RATIO = Where(measure="test_accuracy", over=BARE)
"""Test accuracy as a share of the undefended model's."""


def audits(scale: Scale, defence: str) -> Mapping[str, Mapping[str, Any]]:
    """An audit for each value of the setting."""
    name, field, values = SETTINGS[defence]
    count = 10 if scale == "small" else 100
    return {
        part(defence, value): features(
            scale,
            forget=[f"random={count}/1"],
            unlearn=[BARE],
            defend=[name],
            seeds=2 if scale == "small" else 3,
            settings={name: {field: value}},
        )
        for value in values
    }
