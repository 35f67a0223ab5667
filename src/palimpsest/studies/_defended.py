"""What Figures 11 and 12 and Table 4 of the inversion paper share: approximate unlearning behind each of three defences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from palimpsest.studies._inversion import COLUMNS, FEATURES, METHODS, PERCEPTUAL, RANK, at, features
from palimpsest.studies.base import Claim, Curve, Scale, Table, Where

BARE, ADAPTIVE = METHODS["approximate"], "adaptive_inversion"
SETTINGS: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "parameter obfuscation": ("parameter_noise", "sigma", (0.001, 0.003, 0.005, 0.007)),
    "model pruning": ("pruning", "share", (0.7, 0.8, 0.9)),
    "fine-tuning": ("finetuning", "lr", (0.0001, 0.0005, 0.001, 0.005, 0.01)),
}
"""As the paper calls a defence → our name, its setting, and the values that it tries (section 7)."""
ADDITIONAL = (
    "The paper fine-tunes on 100 additional samples and does not say where they are from, nor for how many steps. Ours are drawn "
    "from the private images that are kept, on which the model was trained, and all go into each of ten steps; images that are new "
    "to the model would move it farther."
)
"""A note of the studies of fine-tuning."""
SHORT = {"parameter obfuscation": "σ", "model pruning": "p", "fine-tuning": "lr"}


def part(defence: str, value: float) -> str:
    return f"{SHORT[defence]} {value:g}"


def defended(defence: str, value: float, target: str = "unlearned") -> Where:
    return Where(part(defence, value), target, f"{BARE}+{SETTINGS[defence][0]}")


def undefended(defence: str, value: float, target: str = "unlearned") -> Where:
    """Of the same audit."""
    return Where(part(defence, value), target, BARE)


KNOWS = at("rank", ADAPTIVE)
"""Rank of the deleted image by an attacker who knows the defence."""
RATIO = Where(measure="test_accuracy", over=BARE)
"""Test accuracy as a share of the undefended model's."""


def table(title: str, defences: Sequence[str], printed: Mapping[str, Sequence[float]]) -> Table:
    """A row for each setting, and the undefended models of the same audits. printed: ratios of accuracy, per cent."""
    rows = {part(name, value): defended(name, value) for name, value in each(defences)}
    free = {f"{part(name, value)}, undefended": undefended(name, value) for name, value in each(defences)}
    return Table(title, {**rows, **free}, {"accuracy ratio": replace(RATIO, times=100.0), **COLUMNS}, printed)


def curve(title: str, name: str) -> Curve:
    """Rank of the deleted image against a defence's setting, by both attackers."""
    _, field, values = SETTINGS[name]
    points = {
        "defended": [(value, defended(name, value) | RANK) for value in values],
        "defended, and the attacker knows": [(value, defended(name, value) | KNOWS) for value in values],
        "placebo": [(value, defended(name, value, "placebo") | RANK) for value in values],
        "undefended": [(value, undefended(name, value) | RANK) for value in values],
    }
    return Curve(f"{title}, {name}", field, "rank of the deleted image", points)


def farther(name: str) -> Claim:
    """The strongest setting against the weakest."""
    weakest, *_, strongest = (defended(name, value) | PERCEPTUAL for value in SETTINGS[name][2])
    text = f"{name}: the strongest setting leaves images perceptually farther than the weakest"
    return Claim(text, ((1.0, strongest), (-1.0, weakest)), above=0.0)


def each(defences: Iterable[str]) -> list[tuple[str, float]]:
    """Every defence with every setting."""
    return [(name, value) for name in defences for value in SETTINGS[name][2]]


def audits(scale: Scale, defence: str) -> Mapping[str, Mapping[str, Any]]:
    """An audit for each value of the setting."""
    name, field, values = SETTINGS[defence]
    search = features(scale)["settings"][FEATURES]
    count = 6 if scale == "small" else 100
    return {
        part(defence, value): features(
            scale,
            forget=[f"random={count}/1"],
            unlearn=[BARE],
            defend=[name],
            attack=[FEATURES, ADAPTIVE],
            seeds=2 if scale == "small" else 3,
            settings={name: {field: value}, ADAPTIVE: {**search, "defence": name}},
        )
        for value in values
    }
