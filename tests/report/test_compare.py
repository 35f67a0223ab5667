"""Two audits side by side: the difference that was put in is the difference that comes out."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from palimpsest import record as records
from palimpsest.errors import BadInput
from palimpsest.report.compare import compare
from palimpsest.report.comparison_table import ComparisonTable, Row, escape_latex
from tests.report import made

ACCURACY, UMA = made.EXAMINERS[2:3], made.EXAMINERS[:1]
KEY = ("forget_accuracy", ())


def row(table: ComparisonTable, name: str = "forget_accuracy", unlearner: str = "salun", **at: float) -> Row:
    found = [r for r in table.rows if r.unlearner == unlearner and r.target == "unlearned" and r.key[0] == name]
    return next(r for r in found if dict(r.key[1]) == at)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "a", tmp_path / "b"


def change_hits(folder: Path, record: records.Record, seed: int, hits: int) -> records.Record:
    """The record with exactly this many forgotten records known by salun, its first ones."""
    cells = []
    for cell in record.cells:
        if (cell.unlearner, cell.target, cell.seed) == ("salun", "unlearned", seed):
            scores = records.read_scores(folder, str(cell.scores))
            correct = scores["correct"].copy()
            correct[scores["group"] == 1] = np.arange(made.SIZES["forget"]) < hits
            scores = made.scores_of(scores, correct=correct)
            measures = [records.MeasureRow.of(m) for m in made.EXAMINERS[2].measure(scores)]
            records.write(record, folder, {str(cell.scores): scores})
            cell = cell.model_copy(update={"measures": measures})
        cells.append(cell)
    changed = record.model_copy(update={"cells": cells})
    records.write(changed, folder, {})
    return changed


def test_a_known_difference(pair: tuple[Path, Path]) -> None:
    for folder, hits in zip(pair, ((10, 20), (14, 24)), strict=True):
        record = made.record(folder, examiners=ACCURACY)
        for seed in (0, 1):
            record = change_hits(folder, record, seed, hits[seed])
    found = row(compare(*pair))
    assert found.how == "paired"
    assert found.first == pytest.approx(15 / 40)
    assert found.second == pytest.approx(19 / 40)
    assert found.difference == pytest.approx(4 / 40)
    assert 0 < found.low < 4 / 40 < found.high < 0.2
    assert found.seeds == (0, 1)
    seeds = [r for r in compare(*pair, per_seed=True).rows if r.unlearner == "salun" and r.key == KEY]
    assert [r.difference for r in seeds if r.target == "unlearned"] == pytest.approx([4 / 40, 4 / 40])


def test_pairing_narrows_the_interval(pair: tuple[Path, Path]) -> None:
    for folder, hits in zip(pair, (16, 20), strict=True):
        record = made.record(folder, seeds=(0,), examiners=ACCURACY)
        change_hits(folder, record, 0, hits)
    paired = row(compare(*pair))
    record = records.read(pair[1])
    records.write(record.model_copy(update={"data": {**record.data, "fingerprint": "another"}}), pair[1], {})
    unpaired = row(compare(*pair))
    for path in (pair[0] / "scores").iterdir():
        path.unlink()
    ends = row(compare(*pair))
    assert (paired.how, unpaired.how, ends.how) == ("paired", "unpaired", "from ends")
    assert paired.difference == unpaired.difference == ends.difference == pytest.approx(0.1)
    assert paired.low > 0 > unpaired.low
    # 4 of 40 differ: sd of the mean of the paired differences is sqrt(.1 * .9 / 40) = 0.047, unpaired 0.110
    assert paired.high - paired.low == pytest.approx(2 * 1.96 * 0.0474, rel=0.15)
    assert unpaired.high - unpaired.low == pytest.approx(2 * 1.96 * 0.110, rel=0.15)
    assert ends.high - ends.low == pytest.approx(unpaired.high - unpaired.low, rel=0.2)


def test_other_records_are_not_paired(pair: tuple[Path, Path]) -> None:
    record = made.record(pair[0], seeds=(0,), examiners=ACCURACY)
    made.record(pair[1], seeds=(0,), examiners=ACCURACY)
    key = next(str(cell.scores) for cell in record.cells if cell.unlearner == "salun" and cell.target == "unlearned")
    scores = records.read_scores(pair[1], key)
    records.write(record, pair[1], {key: type(scores)(scores.unit, scores.ids[::-1].copy(), scores.arrays)})
    table = compare(*pair)
    assert row(table).how == "unpaired"
    assert row(table, unlearner="finetune").how == "paired"


def test_an_audit_does_not_differ_from_itself(pair: tuple[Path, Path]) -> None:
    made.record(pair[0], methods=("salun",), examiners=made.EXAMINERS[1:])
    table = compare(pair[0], pair[0])
    assert {(r.difference, r.how) for r in table.rows} == {(0.0, "paired")}
    assert (row(table).low, row(table).high) == (0.0, 0.0)
    assert len(table.rows) == sum(
        len(c.measures) for c in records.read(pair[0]).cells if c.seed == 0 and c.replica == 0
    )
    assert table.notes == ()


def test_rows_match_in_method_attack_target_and_parameter(pair: tuple[Path, Path]) -> None:
    made.record(pair[0], seeds=(0, 1), examiners=UMA)
    made.record(pair[1], seeds=(1, 2), examiners=UMA, draw=1, methods=("salun", "influence"), known={"unlearned": 0.1})
    table = compare(*pair)
    found = row(table, "uma.forget_accuracy", epsilon=32 / 255)
    first, second = (
        next(
            m.value
            for c in records.read(folder).cells
            for m in c.measures
            if (c.unlearner, c.target, c.seed) == ("salun", "unlearned", 1)
            if m.name == "uma.forget_accuracy" and m.at == {"epsilon": 32 / 255}
        )
        for folder in pair
    )
    assert found.seeds == (1,)
    assert (found.first, found.second) == (first, second)
    assert {r.unlearner for r in table.rows} == {"", "salun"}
    notes = "\n".join(table.notes)
    assert "only in the first: finetune (uma)" in notes
    assert "only in the second: influence (uma)" in notes
    assert "seeds differs: [0, 1] | [1, 2]" in notes
    assert "the forgotten records differ" in notes


def test_notes_say_which_setting_differs_and_what_failed(pair: tuple[Path, Path]) -> None:
    made.record(pair[0], seeds=(0,), examiners=ACCURACY)
    record = made.record(pair[1], seeds=(0,), examiners=ACCURACY, extra=(made.failed("salun", "uma", "out of memory"),))
    cells = [c.model_copy(update={"settings": {"lr": 0.5}}) if c.unlearner == "salun" else c for c in record.cells]
    records.write(record.model_copy(update={"cells": cells}), pair[1], {})
    notes = "\n".join(compare(*pair).notes)
    assert "salun.lr differs: 0.01 | 0.5" in notes
    assert "without numbers in the second: 1 cell, the first failed: out of memory" in notes


def test_notes_stay_short(pair: tuple[Path, Path]) -> None:
    first = made.record(pair[0], seeds=(0,), examiners=ACCURACY)
    record = made.record(pair[1], seeds=(0,), examiners=ACCURACY, extra=(made.failed("salun", "uma", "no " * 2000),))
    words = "palimpsest audit " + "--set recipe.lr=0.1 " * 200
    recipe = {**first.recipe, "name": "recipe", "lr": 0.25, "epochs": 7}
    many = [c.model_copy(update={"unlearner": f"own#{n}"}) for n in range(30) for c in record.cells if c.unlearner]
    records.write(first.model_copy(update={"command": words + "--seeds 3", "recipe": recipe}), pair[0], {})
    update = {"command": words + "--seeds 1", "recipe": {**recipe, "epochs": 8}, "cells": [*record.cells, *many]}
    records.write(record.model_copy(update=update), pair[1], {})
    notes = compare(*pair).notes
    assert max(map(len, notes)) < 600, notes
    told = "\n".join(notes)
    assert "--seeds 3 | " in told
    assert "recipe differs: epochs = 7 | epochs = 8" in told
    assert re.search(r"only in the second: own#0 .* and \d+ more", told)


def test_text_csv_and_latex_say_the_same(pair: tuple[Path, Path]) -> None:
    made.record(pair[0], seeds=(0,), examiners=UMA)
    made.record(pair[1], seeds=(0,), examiners=UMA, draw=1)
    table = compare(*pair)
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert [float(line["difference"]) for line in lines] == [r.difference for r in table.rows]
    assert [line["measure"] for line in lines] == [table.measure(r) for r in table.rows]
    text, latex = table.text(), table.latex()
    assert str(pair[0]) in text
    for r in table.rows:
        assert table.measure(r) in text
        assert escape_latex(table.measure(r)) in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(body) == len(table.rows) + 1
    assert {line.replace(r"\&", "").count("&") for line in body} == {7}
    assert r"\toprule" in latex
    assert "uma.forget\\_accuracy at $\\varepsilon$ = 32/255" in latex
    widths = {line.index("paired") for line in text.splitlines() if line.endswith("paired")}
    assert len(widths) == 1


def test_latex_takes_any_name() -> None:
    assert escape_latex("a_b & 5% of {x}^2 ~ \\y #1 $z") == (
        r"a\_b \& 5\% of \{x\}\textasciicircum{}2 \textasciitilde{} \textbackslash{}y \#1 \$z"
    )


def test_a_folder_without_a_record_is_refused(pair: tuple[Path, Path]) -> None:
    made.record(pair[0], seeds=(0,), examiners=ACCURACY)
    with pytest.raises(BadInput, match=r"record\.json"):
        compare(*pair)
