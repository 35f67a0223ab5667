"""Verdicts on the first page."""

from __future__ import annotations

from pathlib import Path

from palimpsest import record as records
from palimpsest.report.numbers import Numbers
from palimpsest.report.verdicts import findings, spans
from palimpsest.report.wording import VERDICTS
from tests.report import made


def test_verdicts_on_many_requests_are_told_by_method(tmp_path: Path) -> None:
    """The first page names a method once for each verdict, with the requests that it fell on."""
    record = made.record(tmp_path, methods=("finetune", "salun"), seeds=(0,), rounds=2)
    most, other = list(VERDICTS)[:2]
    verdicts = [
        row.model_copy(update={"verdict": other if (row.unlearner, row.request) == ("salun", 1) else most})
        for row in record.verdicts
    ]
    records.write(record.model_copy(update={"verdicts": verdicts}), tmp_path, {})
    told = {verdict: who for verdict, who, _ in findings(Numbers(records.read(tmp_path), tmp_path))}
    assert "finetune (every request)" in told[str(most)]
    assert "salun (request 1)" in told[str(most)]
    assert told[str(other)] == "salun (request 2)"
    assert [spans(places) for places in ([3], [0, 1], [0, 1, 2, 4, 6, 7])] == ["4", "1, 2", "1 to 3, 5, 7, 8"]
