"""Residual knowledge: what an attack brings back beyond every control, at each radius and over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from palimpsest.attack.base import Attack
from palimpsest.audit.board import Board
from palimpsest.audit.judge import Subject
from palimpsest.catalog import name_of
from palimpsest.measures.intervals import average, combination
from palimpsest.record import SHARED, Comparison, MeasureRow
from palimpsest.types import Measure

Key = tuple[str, tuple[tuple[str, float], ...]]
EVERY = "controls"
"""What residual knowledge is minus of: whichever of the retrained and the bias-matched control is brought back more."""


Series = Callable[[Key, str], "list[Measure] | None"]
"""(measure's key, "unlearned" or a control) → the measure, one per seed; None where it was not taken."""


def residual_knowledge(board: Board, subject: Subject, attack: Attack, seeds: Sequence[int]) -> list[Comparison]:
    """The rows of `over_controls` for a method; empty for an attack that has no bias-matched control to be read beside."""
    by = name_of(attack)

    def series(key: Key, target: str) -> list[Measure] | None:
        label = subject.home if target in SHARED else subject.label
        return board.series(by, key, target, seeds, label, subject.request)

    if not attack.bias_matched:
        return []
    found = over_controls(by, [key for key in board.keys(by) if key[0] == attack.primary], series, subject.class_wise)
    return [_row(subject, by, own, control, measure) for measure, own, control in found]


def over_controls(by: str, keys: Iterable[Key], series: Series, class_wise: bool) -> list[tuple[Measure, float, float]]:
    """`<by>.residual_knowledge` at each radius; `<by>.residual_area`: the area between the curves from the smallest radius to the
    widest, as a share of what lies between them (trapezoids): their mean gap. Each with the subject's and the control's own mean.
    Unattacked records have no part in it: what controls say of those is no work of the attack.

    At each radius the attacked forget accuracy of the retrained and, class-wise, of the bias-matched control is subtracted,
    whichever is higher on average: where both lie close together this takes a little too much. Paired by seed and record. Empty
    for an attack without radii, and where a control is missing.
    """
    attacked = (key for key in keys if dict(key[1]).get("epsilon", 0) > 0)
    ordered = sorted(attacked, key=lambda key: dict(key[1])["epsilon"])
    if not ordered:
        return []
    rows, terms, radii = [], [], [dict(key[1])["epsilon"] for key in ordered]
    for key, share in zip(ordered, _shares(radii), strict=True):
        own, control = series(key, "unlearned"), _highest(series, key, class_wise)
        if own is None or control is None:
            return []
        terms += [(share, own), (-share, control)]
        found = combination(f"{by}.residual_knowledge", [(1.0, own), (-1.0, control)])
        rows.append((found, average(by, own).value, average(by, control).value))
    area = combination(f"{by}.residual_area", terms)
    over = [
        sum(weight * average(by, each).value for weight, each in terms if (weight > 0) == own) for own in (True, False)
    ]
    return [*rows, (Measure(area.name, area.value, area.low, area.high, area.n), over[0], -over[1])]


def _highest(series: Series, key: Key, class_wise: bool) -> list[Measure] | None:
    """The control with the higher mean; None without a retrained one, or where a bias-matched one is needed and missing."""
    retrained, matched = series(key, "retrained"), series(key, "bias-matched") if class_wise else None
    if retrained is None or not class_wise:
        return retrained
    if matched is None:
        return None
    return max((retrained, matched), key=lambda each: float(np.mean([measure.value for measure in each])))


def _shares(radii: Sequence[float]) -> list[float]:
    """Weights of the trapezoidal rule over these radii; they sum to 1."""
    if len(radii) == 1:
        return [1.0]
    gaps = np.diff(radii) / (radii[-1] - radii[0])
    return [float(weight) for weight in np.append(gaps, 0) / 2 + np.insert(gaps, 0, 0) / 2]


def _row(subject: Subject, by: str, own: float, control: float, found: Measure) -> Comparison:
    return Comparison(
        unlearner=subject.label,
        settings=dict(subject.settings),
        request=subject.request,
        attack=by,
        minus=EVERY,
        subject=own,
        control=control,
        difference=MeasureRow.of(found),
    )
