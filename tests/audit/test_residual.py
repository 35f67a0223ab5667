"""Residual knowledge against numbers worked out by hand, and in a record and its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.residual.uma import Uma
from palimpsest.audit.board import Board, Place
from palimpsest.audit.judge import Subject
from palimpsest.audit.residual import EVERY, residual_knowledge
from palimpsest.measures.intervals import share
from palimpsest.types import Measure
from tests.audit.small import run

CURVES = {"unlearned": (10, 60, 90), "bias-matched": (40, 50, 97), "retrained": (0, 55, 60)}
"""Target → records of 100 that are named at ε 0, 0.1 and 0.4."""


def board(curves: dict[str, tuple[int, ...]] = CURVES, seeds: int = 1) -> Board:
    made = Board()
    for seed in range(seeds):
        for target, hits in curves.items():
            label = "" if target == "retrained" else "salun"
            made.measures[Place("uma", target, seed, label)] = {
                measure.key: measure
                for radius, count in zip((0.0, 0.1, 0.4), hits, strict=True)
                for measure in [share("uma.forget_accuracy", np.arange(100) < count, at={"epsilon": radius})]
            }
    return made


def found(made: Board, class_wise: bool = True, seeds: int = 1) -> dict[tuple[str, float | None], Measure]:
    rows = residual_knowledge(made, Subject("salun", {}, 0, class_wise), Uma(), range(seeds))
    assert {row.minus for row in rows} <= {EVERY}
    return {(row.difference.name, row.difference.at.get("epsilon")): row.difference for row in rows}


def test_the_higher_control_is_taken_off_at_each_radius_and_the_area_is_that_between_the_curves() -> None:
    rows = found(board())
    assert rows["uma.residual_knowledge", 0.1].value == pytest.approx(0.60 - 0.55)
    assert rows["uma.residual_knowledge", 0.4].value == pytest.approx(0.90 - 0.97)
    area = np.trapezoid([0.60 - 0.55, 0.90 - 0.97], [0.1, 0.4]) / 0.3
    assert rows["uma.residual_area", None].value == pytest.approx(area)
    assert all(row.low <= row.value <= row.high for row in rows.values())
    assert ("uma.residual_knowledge", 0.0) not in rows


def test_instance_wise_the_retrained_control_alone_is_taken_off() -> None:
    rows = found(board(), class_wise=False)
    assert rows["uma.residual_knowledge", 0.4].value == pytest.approx(0.30)


def test_equal_curves_leave_exactly_nothing_and_seeds_are_paired() -> None:
    same = dict.fromkeys(CURVES, (10, 60, 90))
    rows = found(board(same, seeds=3), seeds=3)
    assert {row.value for row in rows.values()} == {0.0}
    assert all(row.low == row.high == 0.0 for row in rows.values())


def test_nothing_is_said_without_the_controls_that_it_needs() -> None:
    assert found(board({name: hits for name, hits in CURVES.items() if name != "bias-matched"})) == {}
    assert found(board({name: hits for name, hits in CURVES.items() if name != "retrained"})) == {}
    assert residual_knowledge(board(), Subject("salun", {}, 0, True), ConfidenceMembership(), [0]) == []


def test_it_is_in_the_record_and_the_report(tmp_path: Path) -> None:
    record = run(tmp_path)
    rows = [row for row in record.comparisons if row.minus == EVERY]
    assert {(row.unlearner, row.difference.name) for row in rows} == {
        (label, f"uma.residual_{what}") for label in ("retrain", "finetune") for what in ("knowledge", "area")
    }
    for row in rows:
        assert row.difference.value == pytest.approx(row.subject - row.control)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "uma: residual knowledge" in page
    assert "Area between the curves" in page
