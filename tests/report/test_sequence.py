"""Curves against the number of requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from palimpsest.record import Record
from palimpsest.report import sequence
from palimpsest.report.blocks import Gallery
from palimpsest.report.figures import Line, against_requests
from palimpsest.report.numbers import Numbers
from palimpsest.types import Measure
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import run


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A class gone whole between two requests for single records."""
    folder = tmp_path_factory.mktemp("sequence")
    return folder / "out", run(
        folder, forget=("random=20", "class=3", "random=10"), attacks=(), verifiers=(Accuracy(),), reported=False
    )


def test_controls_are_in_range_where_classes_and_single_records_are_forgotten(mixed: tuple[Path, Record]) -> None:
    """The control names forgotten records of classes that it still knows: no reason to distrust it."""
    assert not [warning for warning in mixed[1].warnings if warning.name == "control-out-of-range"]


def test_quality_and_cost_of_each_method_against_requests(mixed: tuple[Path, Record]) -> None:
    folder, record = mixed
    numbers = Numbers(record, folder)
    section = sequence.section(numbers)
    galleries = [block for block in section.blocks if isinstance(block, Gallery)]
    assert [figure.title for figure in galleries[0].figures] == ["retrain", "finetune"]
    assert len({figure.name for gallery in galleries for figure in gallery.figures}) == 4 * 2
    key = ("test_accuracy", ())
    wanted = [numbers.mean("accuracy", key, "unlearned", "finetune", at).measure.value for at in range(3)]
    assert f"unlearned: {', '.join(f'{value:.0%}' for value in wanted)}" in galleries[0].figures[1].alt


def test_costs_add_up(mixed: tuple[Path, Record]) -> None:
    folder, record = mixed
    cells = {cell.request: cell for cell in record.cells if (cell.target, cell.unlearner) == ("unlearned", "finetune")}
    original = next(cell for cell in record.cells if cell.target == "original")
    whole = sum(cells[request].cost["seconds"] for request in range(3)) / original.cost["seconds"]
    (*_, costs) = sequence.section(Numbers(record, folder)).blocks
    assert f"unlearned: {cells[0].cost['seconds'] / original.cost['seconds']:.2f}, " in costs.figures[1].alt
    assert f", {whole:.2f}. retrained" in costs.figures[1].alt


def test_one_request_has_no_curve(tmp_path: Path) -> None:
    record = run(tmp_path, attacks=(), verifiers=(Accuracy(),), reported=False)
    assert sequence.section(Numbers(record, tmp_path / "out")) is None


@pytest.mark.parametrize("points", [1, 2, 20])
def test_any_number_of_requests_is_drawn(points: int) -> None:
    line = Line(
        "unlearned", tuple((at + 1.0, Measure("cost", float(at), float(at), float(at), 1)) for at in range(points))
    )
    assert against_requests([line], label="cost", share=False).startswith(b"\x89PNG")
