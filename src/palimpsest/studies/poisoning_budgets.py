"""Beyond the poisoning paper: what each poison does at smaller and larger budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._poisoning import CONTROLS, DIGITS, PAPER, TA
from palimpsest.studies._uma import merged
from palimpsest.studies.base import Claim, Curve, Scale, Study, Where
from palimpsest.studies.poisoning_figure2a import BREWED, SUCCESS
from palimpsest.studies.poisoning_gaussian import HEART, Z
from palimpsest.studies.poisoning_table1 import LINEAR

_EPSILONS, _OWNED = (16, 32, 48, 96), (0.15, 0.45, 0.9)
_SHARES, _DEVIATIONS = (0.05, 0.15, 0.3), (0.25, 0.57, 1.0)


def _within(epsilon: int) -> str:
    return f"targeted, {epsilon} of 255"


def _owning(share: float) -> str:
    return f"targeted, {share:.0%} of a class"


def _indiscriminate(share: float) -> str:
    return f"indiscriminate, {share:.0%}"


def _noise(deviation: float) -> str:
    return f"noise, deviation {deviation:g}"


def _curve(title: str, across: str, upwards: str, parts: Sequence[tuple[float, str]], seen: Where) -> Curve:
    lines = {name: [(at, Where(part) | where | seen) for at, part in parts] for name, where in CONTROLS.items()}
    return Curve(title, across, upwards, lines, share=upwards != "z")


def _grows(text: str, more: str, less: str, seen: Where, sign: float) -> Claim:
    return Claim(text, ((sign, Where(more, "original") | seen), (-sign, Where(less, "original") | seen)), above=0.0)


@dataclass(frozen=True)
class PoisoningBudgets(Study):
    """What the poisons of the other studies do at less and at more than the settings that those have: digits, no method but a short
    retraining. Each curve moves one setting and leaves the rest as it is there.

    Paper scale is the same on CIFAR-10 with the paper's model.
    """

    paper = "ours; on the poisons of the poisoning paper"
    about = "poisons against how much of the data, and how much of each record, the adversary may change"
    curves = (
        _curve(
            "Targeted, against ε",
            "greatest change, of 255",
            "success",
            [(float(e), _within(e)) for e in _EPSILONS],
            SUCCESS,
        ),
        _curve(
            "Targeted, against the adversary's records",
            "share of the class",
            "success",
            [(share, _owning(share)) for share in _OWNED],
            SUCCESS,
        ),
        _curve(
            "Indiscriminate, against the adversary's records",
            "share of all records",
            "test accuracy",
            [(share, _indiscriminate(share)) for share in _SHARES],
            Where(measure=TA),
        ),
        _curve(
            "Noise, against its size",
            "standard deviation",
            "z",
            [(deviation, _noise(deviation)) for deviation in _DEVIATIONS],
            Z,
        ),
    )
    claims = (
        _grows("a larger ε gives more success", _within(_EPSILONS[-1]), _within(_EPSILONS[0]), SUCCESS, 1.0),
        _grows("more records give more success", _owning(_OWNED[-1]), _owning(_OWNED[0]), SUCCESS, 1.0),
        _grows(
            "more records cost more test accuracy",
            _indiscriminate(_SHARES[-1]),
            _indiscriminate(_SHARES[0]),
            Where(measure=TA),
            -1.0,
        ),
        _grows("larger noise lowers z", _noise(_DEVIATIONS[-1]), _noise(_DEVIATIONS[0]), Z, -1.0),
    )
    notes = (
        "No published numbers: the paper has one budget of each poison but the indiscriminate one, which has two.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        small = scale == "small"
        images, lines, heart = (DIGITS, LINEAR, HEART) if small else (PAPER, PAPER, PAPER)
        own = 0.9 if small else 0.15
        found: dict[str, dict[str, Any]] = {}
        for epsilon in _EPSILONS:
            craft = {**BREWED[scale], "epsilon": epsilon / 255}
            found[_within(epsilon)] = _part(images, "gradient_matching", craft, f"class=3:{own}")
        for share in _OWNED:
            found[_owning(share)] = _part(images, "gradient_matching", BREWED[scale], f"class=3:{share}")
        for share in _SHARES:
            found[_indiscriminate(share)] = _part(lines, "gradient_canceling", {}, f"random={share}")
        for deviation in _DEVIATIONS:
            found[_noise(deviation)] = _part(heart, "gaussian", {"deviation": deviation}, "random=0.5")
        return found


def _part(base: dict[str, Any], poison: str, craft: dict[str, Any], forget: str) -> dict[str, Any]:
    settings = {"retrain": {"epochs": 1}, **({poison: craft} if craft else {})}
    return merged(base, forget=[forget], unlearn=["retrain"], attack=[poison], seeds=12, settings=settings)
