"""The cost table gives what was measured, in the units that its columns say."""

from __future__ import annotations

from pathlib import Path

from palimpsest.report.costs import section
from palimpsest.report.numbers import Numbers
from tests.report import made


def test_a_known_rise_of_memory_is_shown_in_mebibytes(tmp_path: Path) -> None:
    """Over two seeds, one of which took 3 MiB and the other 4."""
    record = made.record(tmp_path, methods=("finetune",), seeds=(0, 1), examiners=made.EXAMINERS[2:])
    rises = {("unlearned", 0): 3 * 2**20, ("unlearned", 1): 4 * 2**20, ("retrained", 0): 300 * 2**20}
    cells = [
        cell.model_copy(update={"cost": {**cell.cost, "peak_memory": rises.get((cell.target, cell.seed), 0)}})
        for cell in record.cells
    ]
    (table, *_) = section(Numbers(record.model_copy(update={"cells": cells}), tmp_path)).blocks
    place = table.columns.index("Memory added, MiB")
    shown = {row[0].lines[0]: row[place].lines[0] for row in table.rows}
    assert shown == {"original": "0", "retrained": "150", "finetune": "3.50"}
