"""Residual knowledge: what an attack brings back beyond every control, at each radius and over all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palimpsest.attack.base import Attack
from palimpsest.audit.board import Board
from palimpsest.audit.judge import Subject
from palimpsest.catalog import name_of
from palimpsest.measures.intervals import average, combination
from palimpsest.record import Comparison, MeasureRow
from palimpsest.types import Measure

EVERY = "controls"
"""What residual knowledge is minus of: whichever of the retrained and the bias-matched control is brought back more."""


def residual_knowledge(board: Board, subject: Subject, attack: Attack, seeds: Sequence[int]) -> list[Comparison]:
    """`<attack>.residual_knowledge` at each radius; `<attack>.residual_area`: the area between the curves over the radius, as
    a share of the widest radius (trapezoids, the unattacked records first).

    At each radius the attacked forget accuracy of the retrained and, class-wise, of the bias-matched control is subtracted,
    whichever is higher on average: where both lie close together this takes a little too much. Paired by seed and record. Empty
    for an attack without radii, and where there is no retrained control.
    """
    by = name_of(attack)
    keys = sorted(
        (key for key in board.keys(by) if key[0] == attack.primary and key[1]), key=lambda key: dict(key[1])["epsilon"]
    )
    if not attack.bias_matched or len(keys) < 2:
        return []
    rows, terms, radii = [], [], [dict(key[1])["epsilon"] for key in keys]
    for key, share in zip(keys, _shares(radii), strict=True):
        own = board.series(by, key, "unlearned", seeds, subject.label, subject.request)
        control = _highest(board, subject, by, key, seeds)
        if own is None or control is None:
            return []
        terms += [(share, own), (-share, control)]
        if dict(key[1])["epsilon"] > 0:
            found = combination(f"{by}.residual_knowledge", [(1.0, own), (-1.0, control)])
            rows.append(_row(subject, by, average(by, own).value, average(by, control).value, found))
    area = combination(f"{by}.residual_area", terms)
    area = Measure(area.name, area.value, area.low, area.high, area.n)
    over = [sum(w * average(by, series).value for w, series in terms if (w > 0) == own) for own in (True, False)]
    return [*rows, _row(subject, by, over[0], -over[1], area)]


def _highest(board: Board, subject: Subject, by: str, key: object, seeds: Sequence[int]) -> list[Measure] | None:
    """The control with the higher mean; None without a retrained one, or where a bias-matched one is needed and missing."""
    retrained = board.series(by, key, "retrained", seeds, subject.home, subject.request)
    matched = board.series(by, key, "bias-matched", seeds, subject.label, subject.request)
    if retrained is None or not subject.class_wise:
        return retrained
    if matched is None:
        return None
    return max((retrained, matched), key=lambda series: float(np.mean([measure.value for measure in series])))


def _shares(radii: Sequence[float]) -> list[float]:
    """Weights of the trapezoidal rule over these radii, as shares of the widest."""
    gaps = np.diff(radii) / radii[-1]
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
