"""Corrective unlearning: what is left of a poison when a part of it alone was found, and is asked to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._poisoning import BESIDE, METHODS, SPENT, TA, row, rows_of
from palimpsest.studies.base import Claim, Curve, Scale, Study, Table, Where
from palimpsest.studies.poisoning_figure2a import PART, PoisoningFigure2a
from palimpsest.studies.poisoning_table1 import HIGHEST, LAST, PoisoningTable1, part

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
FEW, HALF, ALL = SHARES[0], SHARES[2], SHARES[-1]
NAMES = ("GD", "SCRUB", "NGP")
TARGETED, INDISCRIMINATE = "targeted", "indiscriminate"
_SUCCESS = Where(measure="gradient_matching.success_rate")
_MEASURES = {TARGETED: _SUCCESS, INDISCRIMINATE: Where(measure=TA)}
_TOLD = {
    TARGETED: {"success": _SUCCESS | Where(times=100.0), "confidence": Where(measure="gradient_matching.confidence")},
    INDISCRIMINATE: {"error": Where(measure="gradient_canceling.error_rate", times=100.0)},
}
_ROWS = rows_of(NAMES)


def found(poison: str, share: float) -> str:
    """The audit in which this share of a poison was found."""
    return f"{poison}, {share:.0%} detected"


def _curve(poison: str, upwards: str) -> Curve:
    lines = {
        name: [(share, where | Where(found(poison, share)) | _MEASURES[poison]) for share in SHARES]
        for name, where in _ROWS.items()
    }
    return Curve(f"{poison.capitalize()} poison", "share of the poison that is detected", upwards, lines)


def _at(poison: str, share: float, target: str) -> Where:
    return Where(found(poison, share), target) | _MEASURES[poison]


def _lost(poison: str, share: float) -> tuple[tuple[float, Where], ...]:
    """How much of a poison's effect retraining leaves, beyond half of it."""
    of = {target: _at(poison, share, target) for target in ("retrained", "original", "clean")}
    if poison == TARGETED:
        return (1.0, of["retrained"]), (-0.5, of["original"])
    return (-1.0, of["retrained"]), (0.5, of["original"]), (0.5, of["clean"])


def _claims(poison: str) -> tuple[Claim, ...]:
    sign = 1.0 if poison == TARGETED else -1.0
    return (
        Claim(f"{poison}: a tenth detected, retraining leaves half or more of it", _lost(poison, FEW), above=0.0),
        Claim(f"{poison}: all detected, retraining leaves less than half of it", _lost(poison, ALL), below=0.0),
        Claim(
            f"{poison}: retraining leaves more of it with a tenth detected than with all",
            ((sign, _at(poison, FEW, "retrained")), (-sign, _at(poison, ALL, "retrained"))),
            above=0.0,
        ),
        *(
            Claim(
                f"{poison}: half detected, {name} leaves more of it than retraining without all",
                (
                    (sign, row(name) | Where(found(poison, HALF)) | _MEASURES[poison]),
                    (-sign, _at(poison, ALL, "retrained")),
                ),
                above=0.0,
            )
            for name in NAMES
        ),
    )


@dataclass(frozen=True)
class PoisoningDetected(Study):
    """The targeted poison of `poisoning_figure2a` and the stronger indiscriminate one of `poisoning_table1`, of which 10 to 100 %
    of the records are detected, drawn at random, and unlearned; the rest stays in the data that methods and retraining go on with.

    The settings are those of the two studies, on 8 seeds, so that poisons and poisoned models are theirs too. Small: digits, a
    perceptron and a linear model. Paper: CIFAR-10, ResNet-18. The paper detects all: this question is that of corrective unlearning
    (Goel et al. 2024), and there are no published numbers.
    """

    paper = "beyond the poisoning paper: corrective unlearning"
    about = "poisons of which a part is detected: success and accuracy after unlearning that part"
    tables = tuple(
        Table(f"{poison.capitalize()}, {share:.0%} detected", _ROWS, {**_TOLD[poison], **BESIDE}).within(
            found(poison, share)
        )
        for poison in _MEASURES
        for share in SHARES
    )
    curves = (_curve(TARGETED, "success of the poison"), _curve(INDISCRIMINATE, "test accuracy"))
    claims = tuple(claim for poison in _MEASURES for claim in _claims(poison))
    notes = (
        "The retrained control is trained without the detected records alone: it is what unlearning them is to come to.",
        "A seed has one target of the targeted poison, so that a success is 0 or 1: with 8 seeds its intervals are wide.",
        SPENT,
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        whole = {
            TARGETED: PoisoningFigure2a().parts(scale)[PART],
            INDISCRIMINATE: PoisoningTable1().parts(scale)[part(HIGHEST, LAST)],
        }
        methods = [METHODS[name] for name in NAMES]
        return {
            found(poison, share): {
                **fields,
                "detected": share,
                "unlearn": ["retrain", *methods],
                "search": {method: fields["search"][method] for method in methods},
                "seeds": 8,
            }
            for poison, fields in whole.items()
            for share in SHARES
        }
