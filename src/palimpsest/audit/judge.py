"""From measures to comparisons, readings and verdicts: every number beside and minus its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palimpsest.attack.base import Attack
from palimpsest.audit.board import Board
from palimpsest.audit.policy import Evidence, Policy, Reading
from palimpsest.audit.yardstick import ACCURACY, Yardstick
from palimpsest.catalog import name_of
from palimpsest.measures.intervals import LEVEL, average, difference
from palimpsest.record import SHARED, Comparison, MeasureRow, VerdictRow
from palimpsest.types import Measure

CONTROLS = ("retrained", "clean", "untrained", "bias-matched", "placebo", "original", "known-leak")


@dataclass(frozen=True)
class Subject:
    """A method under judgement: its label, settings, request, and what stands against reading it at all.

    learner: who trained what it unlearns. home: the label of the controls that it shares with others.
    """

    label: str
    settings: Mapping[str, Any]
    request: int
    class_wise: bool
    learner: str = "plain"
    home: str = ""
    identical: bool = False
    defence: str | None = None
    failed: tuple[str, ...] = ()


def compare(board: Board, subject: Subject, by: str, attack: bool, seeds: Sequence[int]) -> list[Comparison]:
    """The subject's measures minus each control's, averaged over seeds."""
    rows = []
    for key in board.keys(by):
        own = board.series(by, key, "unlearned", seeds, subject.label, subject.request)
        if own is None:
            continue
        for control in CONTROLS:
            label = subject.home if control in SHARED else subject.label
            other = board.series(by, key, control, seeds, label, subject.request)
            if other is None:
                continue
            rows.append(
                Comparison(
                    unlearner=subject.label,
                    settings=dict(subject.settings),
                    request=subject.request,
                    attack=by if attack else None,
                    minus=control,
                    subject=average(own[0].name, own).value,
                    control=average(own[0].name, other).value,
                    difference=MeasureRow.of(difference(own[0].name, own, other)),
                )
            )
    return rows


def reading(
    board: Board, subject: Subject, by: str, key: Any, seeds: Sequence[int], level: float, needs_match: bool
) -> Reading | None:
    """One measure of the subject with its differences from the controls; None where the subject has no such measure."""
    own = board.series(by, key, "unlearned", seeds, subject.label, subject.request)
    if own is None:
        return None
    retrained = board.series(by, key, "retrained", seeds, subject.home, subject.request)
    placebo = board.series(by, key, "placebo", seeds, subject.label, subject.request)
    original = board.series(by, key, "original", seeds, subject.home, subject.request)
    matched = board.series(by, key, "bias-matched", seeds, subject.label, subject.request)
    negative = retrained or placebo

    def minus(one: list[Measure] | None, other: list[Measure] | None) -> Measure | None:
        return difference(own[0].name, one, other, level=level) if one and other else None

    return Reading(
        name=described(key),
        attack=by,
        value=average(own[0].name, own).value,
        minus_retrained=minus(own, negative),
        minus_original=minus(own, original),
        separation=minus(original, negative),
        by_seed=_by_seed(own, negative, matched, 1 - (1 - level) / len(seeds)),
        minus_matched=minus(own, matched),
        needs_match=needs_match,
        noise=noise(board.replicas(by, key, "retrained", seeds, subject.home, subject.request)),
        matched_noise=noise(board.replicas(by, key, "bias-matched", seeds, subject.label, subject.request)),
    )


def _by_seed(
    own: list[Measure], negative: list[Measure] | None, matched: list[Measure] | None, level: float
) -> list[tuple[float, Measure, Measure | None]]:
    """Each seed alone: its value, minus retrained, and minus the bias-matched control where there is one."""
    found = []
    for index, measure in enumerate(own if negative else []):
        over = [
            difference(measure.name, [measure], [o[index]], level=level) if o else None for o in (negative, matched)
        ]
        if over[0] is not None:
            found.append((measure.value, over[0], over[1]))
    return found


def noise(replicas: Sequence[Sequence[Measure]]) -> float:
    """Mean over seeds of the largest difference between two controls of the same kind."""
    spans = [max(m.value for m in each) - min(m.value for m in each) for each in replicas if each]
    return float(np.mean(spans)) if spans else 0.0


def described(key: tuple[str, tuple[tuple[str, float], ...]]) -> str:
    """uma.forget_accuracy at ε = 8/255."""
    name, at = key
    parts = [f"ε = {value * 255:g}/255" if axis == "epsilon" else f"{axis} = {value:g}" for axis, value in at]
    return name + (" at " + ", ".join(parts) if parts else "")


def evidence(
    board: Board,
    subject: Subject,
    attacks: Sequence[Attack],
    seeds: Sequence[int],
    broken: Sequence[str],
    stick: Yardstick = ACCURACY,
) -> Evidence:
    """What the verdict on one method goes by: accuracies, or what stands in their place, and each attack's primary measure wherever
    it perturbs. Attacks that compare two models say nothing of what one of them remembers."""
    attacks = [attack for attack in attacks if not attack.compares]
    chosen = [
        (name_of(attack), key, attack.bias_matched and subject.class_wise)
        for attack in attacks
        for key in board.keys(name_of(attack))
        if key[0] == attack.primary and dict(key[1]).get("epsilon", 1.0) > 0
    ]
    level = 1 - (1 - LEVEL) / max(1, len(chosen))
    reads = [reading(board, subject, by, key, seeds, level, match) for by, key, match in chosen]
    match = subject.class_wise and stick.matched
    forget = reading(board, subject, stick.by, (stick.forget, ()), seeds, LEVEL, match)
    test = reading(board, subject, stick.by, (stick.test, ()), seeds, LEVEL, False)
    return Evidence(
        forget=forget,
        test=test,
        readings=[read for read in reads if read is not None],
        broken=broken,
        gaps=gaps(board, subject, [*map(name_of, attacks), stick.by]),
        failed=subject.failed,
        identical=subject.identical,
        class_wise=subject.class_wise,
    )


def gaps(board: Board, subject: Subject, needed: Sequence[str]) -> list[str]:
    """What a verdict needs and what failed, on the subject or on one of its controls."""
    return [
        f"{by} failed on {cell.target}, seed {cell.seed}: {cell.reason}"
        for cell in board.cells
        if cell.status == "failed" and cell.request == subject.request
        if cell.unlearner == subject.label or (not cell.unlearner and cell.learner == subject.learner)
        for by in [cell.attack or cell.verifier]
        if by in needed
    ]


def verdict(policy: Policy, subject: Subject, found: Evidence) -> VerdictRow:
    finding, because = policy.judge(found)
    return VerdictRow(
        unlearner=subject.label,
        settings=dict(subject.settings),
        request=subject.request,
        defence=subject.defence,
        verdict=finding,
        because=list(because),
    )
