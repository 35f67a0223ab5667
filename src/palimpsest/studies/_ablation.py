"""What Figures 4 and 5 of the UMA paper share: SalUn, class-wise on CIFAR-10, at several settings of the attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.studies._uma import SMALL, UA, merged, paper
from palimpsest.studies.base import Claim, Curve, Scale, Table, Where

PAPERS, NARROW = 16, 2
"""Radii, of 255: the paper's; and one at which the small scale's attack is not at its ceiling after a few steps."""
_LINES = {
    "SalUn": Where(target="unlearned", method="salun"),
    "retrain": Where(target="retrained"),
    "SalUn: bias-matched": Where(target="bias-matched", method="salun"),
}


def _forget_accuracy(radius: int, of: Where) -> Where:
    return of | Where(measure=UA, at={"epsilon": radius / 255})


def tables(title: str, parts: Sequence[str]) -> tuple[Table, ...]:
    """One for each radius, with a row for each setting."""
    return tuple(
        Table(
            f"{title}, at {radius}/255",
            {part: Where(part) for part in parts},
            {name: _forget_accuracy(radius, where) | Where(times=100.0) for name, where in _LINES.items()},
        )
        for radius in (PAPERS, NARROW)
    )


def curves(title: str, across: str, parts: Mapping[str, float]) -> tuple[Curve, ...]:
    """parts: name of an audit → its setting."""

    def lines(radius: int) -> dict[str, list[tuple[float, Where]]]:
        return {
            name: [(value, _forget_accuracy(radius, where | Where(part))) for part, value in parts.items()]
            for name, where in _LINES.items()
        }

    return tuple(
        Curve(f"{title}, at {radius}/255", across, f"forget accuracy at {radius}/255", lines(radius))
        for radius in (PAPERS, NARROW)
    )


def recovers_more(text: str, one: str, other: str, by: float = 0.0) -> tuple[Claim, ...]:
    """More is recovered of SalUn in one audit than in another, at either radius."""
    return tuple(
        Claim(
            f"{text}, at {radius}/255",
            tuple(
                (weight, _forget_accuracy(radius, _LINES["SalUn"] | Where(part)))
                for weight, part in ((1.0, one), (-1.0, other))
            ),
            above=by,
        )
        for radius in (PAPERS, NARROW)
    )


def audit(scale: Scale, **uma: Any) -> dict[str, Any]:
    """The audit of one setting. Small: 200 of the class's records, of which a share has an error of 3.5 points at most."""
    base = merged(SMALL, settings={"uma": {"records": 200}}) if scale == "small" else paper("CIFAR-10")
    settings = {"uma": {"epsilon": (NARROW / 255, PAPERS / 255), **uma}}
    return merged(base, forget=["class=0"], unlearn=["salun"], settings=settings)
