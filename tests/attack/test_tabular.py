"""Rows of a table, recovered: what counts as a value that a feature can have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palimpsest.attack.leakage import _tabular
from palimpsest.audit.controls import half, placebo
from palimpsest.case import Case
from palimpsest.data.table import Table
from palimpsest.forget.selection import select
from palimpsest.learn.base import Trained
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Split


def table(path: Path, odd: str = "") -> Split:
    """Two features of three values; the record `odd` alone has a fourth."""
    rows = [f"r{row},{9 if f'r{row}' == odd else row % 3},{row % 2},{row % 2}" for row in range(400)]
    path.write_text("key,a,b,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return Table(str(path), id="key").load()


def case(split: Split) -> Case:
    task = Classification.of(split)
    one, two = (Trained(Linear().build(task, Rng(n)).eval(), task, split.train.ids) for n in (0, 1))
    return Case(split, (select("random=1", split.train, split.classes, rng=Rng(0)),), one, two)


def test_a_value_of_a_stand_in_alone_is_a_value(tmp_path: Path) -> None:
    """The placebo's records are taken out of the held-out ones, and may be the only ones with a value."""
    plain = placebo(case(table(tmp_path / "t.csv")), half)
    for odd in plain.forget.ids.tolist():
        stands = placebo(case(table(tmp_path / "t.csv", odd)), half)
        if odd in stands.forget.ids.tolist():
            break
    else:
        pytest.fail("no stand-in to give a value of its own")
    truth = _tabular.scaled(stands, stands.forget.batch().inputs[stands.task.attacked_input])
    place = stands.forget.ids.tolist().index(odd)
    assert float(truth[place, 0]) > float(np.delete(truth[:, 0].numpy(), place).max())
    found = _tabular.arrays_of(stands, truth, truth)
    assert found["exact"].tolist() == [1.0] * len(truth)
    assert found["exact_by_guess"][place] < 1
