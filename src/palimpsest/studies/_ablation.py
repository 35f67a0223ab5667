"""What Figures 4 and 5 of the UMA paper share: SalUn, class-wise on CIFAR-10 at 16/255, at several settings of the attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.studies._uma import EPSILONS, SMALL, forget_accuracy, merged, paper
from palimpsest.studies.base import Claim, Curve, Scale, Table, Where

_LINES = {
    "SalUn": Where(target="unlearned", method="salun"),
    "retrain": Where(target="retrained"),
    "SalUn: bias-matched": Where(target="bias-matched", method="salun"),
}


def table(title: str, parts: Sequence[str]) -> Table:
    """A row for each setting."""
    columns = {name: forget_accuracy(16, where) | Where(times=100.0) for name, where in _LINES.items()}
    return Table(title, {part: Where(part) for part in parts}, columns)


def curve(title: str, across: str, parts: Mapping[str, float]) -> Curve:
    """parts: name of an audit → its setting."""
    lines = {
        name: [(value, forget_accuracy(16, where | Where(part))) for part, value in parts.items()]
        for name, where in _LINES.items()
    }
    return Curve(title, across, "forget accuracy at 16/255", lines)


def recovers_more(text: str, one: str, other: str, by: float = 0.0) -> Claim:
    """More is recovered of SalUn in one audit than in another."""
    terms = tuple(
        (weight, forget_accuracy(16, _LINES["SalUn"] | Where(part))) for weight, part in ((1.0, one), (-1.0, other))
    )
    return Claim(text, terms, above=by)


def audit(scale: Scale, **uma: Any) -> dict[str, Any]:
    """The audit of one setting. Small: 200 of the class's records, of which a share has an error of 3.5 points at most."""
    base = merged(SMALL, settings={"uma": {"records": 200}}) if scale == "small" else paper("CIFAR-10")
    settings = {"uma": {"epsilon": EPSILONS[1:], **uma}}
    return merged(base, forget=["class=0"], unlearn=["salun"], settings=settings)
