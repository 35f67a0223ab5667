"""The report says what the record says, shows what is missing, and lets nothing in the data out as markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from palimpsest import record as records
from palimpsest import report
from palimpsest.errors import BadInput
from palimpsest.record import Cell
from palimpsest.report.costs import section
from palimpsest.report.numbers import Numbers, as_measure
from palimpsest.report.page import compose
from palimpsest.report.wording import VERDICTS, interval, number
from palimpsest.types import Finding
from tests.report import made

EVIL = "<script>alert('a')</script>\"><img src=x onerror=alert(1)>|`_*[x](http://evil.example)"


class Reader(HTMLParser):
    """Tags with attributes, the text outside of tags, and the text of each table row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: list[str] = []
        self.headings: list[str] = []
        self.skip = False
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.skip = tag == "style"
        if tag == "tr":
            self.rows.append("")
        if tag == "h2":
            self.headings.append("")

    def handle_data(self, data: str) -> None:
        if self.skip:
            return
        self.words.append(data)
        if self.rows:
            self.rows[-1] += data
        if self.headings and self.tags[-1][0] == "h2" and data.strip():
            self.headings[-1] = data

    def handle_endtag(self, tag: str) -> None:
        self.skip = False


def written(folder: Path) -> tuple[Reader, str]:
    report.write(folder)
    return read(folder)


def read(folder: Path) -> tuple[Reader, str]:
    return Reader((folder / "report.html").read_text()), (folder / "report.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole report: two methods, two seeds, images, one failed and one skipped cell."""
    place = tmp_path_factory.mktemp("out")
    extra = (
        made.failed("influence", "uma", "the solve did not converge"),
        made.failed("salun", "relearn_time", "no other retrained control", status="skipped", seed=1),
    )
    made.record(place, extra=extra)
    made.with_images(place)
    report.write(place)
    return place


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def markdown(folder: Path) -> str:
    return (folder / "report.md").read_text()


def test_the_verdicts_come_first(html: str, markdown: str) -> None:
    headings = Reader(html).headings
    assert headings[0] == "Verdicts"
    assert headings[1:5] == ["Accuracies", "Attack: uma", "Attack: confidence_membership", "Attacked images"]
    assert headings[5:] == ["Verifiers", "Costs", "Failed and skipped", "Warnings", "How this was made", "Words"]
    assert re.findall("^## (.*)", markdown, re.M) == headings
    first = html[: html.index("</table>")]
    assert "finetune tells too much" in first
    assert "salun tells too much" in first


def test_every_difference_from_a_control_is_the_records_own(folder: Path, html: str) -> None:
    record, rows = records.read(folder), Reader(html).rows
    largest = {"epsilon": 32 / 255}
    shown = [c for c in record.comparisons if c.difference.name == "uma.forget_accuracy" and c.difference.at == largest]
    assert {c.minus for c in shown} == {"retrained", "bias-matched", "original"}
    for comparison in shown:
        if comparison.minus != "original":
            d = comparison.difference
            words = number(d.name, d.value, signed=True) + interval(d.name, d.low, d.high, signed=True)
            method = next(row for row in rows if row.split() and row.split()[0] == comparison.unlearner)
            assert words in method.replace("\n", "")


def test_averages_are_those_that_the_record_compares(folder: Path) -> None:
    record = records.read(folder)
    numbers = Numbers(record, folder)
    for comparison in record.comparisons:
        key = as_measure(comparison.difference).key
        by = comparison.attack or key[0].split(".")[0].replace(key[0], "accuracy")
        own = numbers.mean(by, key, "unlearned", comparison.unlearner, 0)
        shared = comparison.minus in ("retrained", "original")
        control = numbers.mean(by, key, comparison.minus, "" if shared else comparison.unlearner, 0)
        assert own is not None
        assert control is not None
        assert own.measure.value == pytest.approx(comparison.subject, abs=1e-12)
        assert control.measure.value == pytest.approx(comparison.control, abs=1e-12)
        assert own.measure.low <= own.measure.value <= own.measure.high


def test_one_seed_keeps_the_records_intervals(tmp_path: Path) -> None:
    record = made.record(tmp_path, methods=("finetune",), seeds=(3,))
    numbers = Numbers(record, tmp_path)
    for cell in record.cells:
        if cell.target == "unlearned":
            for row in cell.measures:
                by, key = cell.attack or str(cell.verifier), as_measure(row).key
                found = numbers.mean(by, key, cell.target, cell.unlearner, 0)
                assert found is not None
                assert (found.measure.value, found.measure.low, found.measure.high) == (row.value, row.low, row.high)
    reader, _ = written(tmp_path)
    assert "of one seed" in reader.text


def test_scores_that_disagree_do_not_change_a_number(tmp_path: Path) -> None:
    record = made.record(tmp_path, examiners=(made.EXAMINERS[2],))
    before = Numbers(record, tmp_path).mean("accuracy", ("forget_accuracy", ()), "unlearned", "salun", 0)
    key = next(cell.scores for cell in record.cells if cell.unlearner == "salun")
    scores = records.read_scores(tmp_path, str(key))
    changed = made.scores_of(scores, correct=np.ones(len(scores.ids), dtype=bool))
    records.write(record, tmp_path, {str(key): changed})
    numbers = Numbers(record, tmp_path)
    after = numbers.mean("accuracy", ("forget_accuracy", ()), "unlearned", "salun", 0)
    assert before is not None
    assert after is not None
    assert after.measure.value == before.measure.value
    assert len(numbers.unreadable) == 1
    reader, _ = written(tmp_path)
    assert "The scores of 1 cell could not be resampled" in reader.text


def test_what_failed_is_shown_with_its_reason(html: str, markdown: str) -> None:
    for text in (Reader(html).text, markdown):
        assert "the solve did not converge" in text
        assert "no other retrained control" in text
        assert "1 cell failed" in text
    rows = [row for row in Reader(html).rows if row.split() and row.split()[0] == "influence"]
    assert rows
    assert all("failed" in row or "–" in row for row in rows)
    assert any("skipped" in row for row in Reader(html).rows if "relearn_time" in row)


def test_nothing_spent_is_a_number_and_nothing_measured_a_dash(folder: Path) -> None:
    """Amnesiac unlearning passes no record; weights from elsewhere have no cost at all."""
    record = records.read(folder)
    costs = {"original": {}, "retrained": {"seconds": 2.0, "samples": 10, "gradient_evaluations": 0, "peak_memory": 0}}
    cells = [cell.model_copy(update={"cost": costs.get(cell.target, cell.cost)}) for cell in record.cells]
    (table, *_) = section(Numbers(record.model_copy(update={"cells": cells}), folder)).blocks
    shown = {row[0].lines[0]: [entry.lines[0] for entry in row[1:]] for row in table.rows}
    assert shown["original"] == ["–"] * 4
    assert shown["retrained"] == ["2", "10", "0", "0"]


def test_a_method_that_failed_on_one_seed_says_so(tmp_path: Path) -> None:
    record = made.record(tmp_path, examiners=(made.EXAMINERS[2],))
    cells = [
        Cell(unlearner="salun", verifier="accuracy", seed=1, target="unlearned", status="failed", reason="NaN")
        if (cell.unlearner, cell.target, cell.seed) == ("salun", "unlearned", 1)
        else cell
        for cell in record.cells
    ]
    records.write(record.model_copy(update={"cells": cells, "comparisons": []}), tmp_path, {})
    reader, text = written(tmp_path)
    assert "1 of 2 seeds" in reader.text
    assert "1 of 2 seeds" in text


def test_the_html_is_one_file_that_neither_runs_nor_loads_anything(html: str) -> None:
    reader = Reader(html)
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "video", "audio", "svg"}
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, value)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html
    assert "://" not in html
    targets = {attributes.get("id") for _, attributes in reader.tags}
    assert all(a["href"][1:] in targets for tag, a in reader.tags if tag == "a" and a["href"])
    assert all(a.get("alt") for tag, a in reader.tags if tag == "img")


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a record in which every free text is an attack on the reader."""
    folder = tmp_path_factory.mktemp("evil")
    made.with_images(folder, made.panel(EVIL, classes=(EVIL, "one")))
    extra = (made.failed(EVIL, "uma", EVIL), made.failed("finetune", EVIL, EVIL))
    plain = made.record(folder, methods=(EVIL,), seeds=(0,), examiners=())
    made.record(
        folder,
        methods=(EVIL,),
        seeds=(0,),
        extra=extra,
        command=EVIL,
        data={**plain.data, "title": EVIL, "name": EVIL, "classes": [EVIL, "one"], "fingerprint": EVIL},
        model={"name": EVIL},
        versions={EVIL: EVIL},
        hardware={EVIL: EVIL},
        settings={EVIL: EVIL},
        requests=[r.model_copy(update={"selection": EVIL}) for r in plain.requests],
        verdicts=[v.model_copy(update={"because": [EVIL]}) for v in plain.verdicts],
        warnings=[
            w.model_copy(update=dict.fromkeys(("name", "about", "message", "meaning"), EVIL)) for w in plain.warnings
        ],
    )
    report.write(folder)
    return folder


def test_names_from_the_data_stay_text(evil: Path) -> None:
    reader, text = read(evil)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not [a for _, a in reader.tags if any(name.startswith("on") for name in a)]
    assert all((a["src"] or "").startswith("data:image/png") for tag, a in reader.tags if tag == "img")
    assert "<script>alert('a')</script>" in reader.text
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", text, flags=re.M | re.S)  # the command stands in a code block
    assert "<script" not in outside
    assert "<img src=x" not in outside
    assert "](http" not in outside.replace(r"\](http", "")
    assert all(path.parent.name == "figures" for path in evil.rglob("*.png"))


def table_rows(markdown: str) -> Iterator[list[int]]:
    """Numbers of columns of each table's rows."""
    for block in re.split(r"\n\n", markdown):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        if lines:
            yield [len(re.findall(r"(?<!\\)\|", line)) for line in lines]


@pytest.mark.parametrize("kind", ["plain", "evil"])
def test_markdown_tables_have_equal_rows(kind: str, evil: Path, markdown: str) -> None:
    if kind == "evil":
        markdown = re.sub(r"^(`{3,})\n.*?\n\1$", "", (evil / "report.md").read_text(), flags=re.M | re.S)
    counts = list(table_rows(markdown))
    assert len(counts) > 10
    assert all(len(set(count)) == 1 for count in counts)


def test_the_figures_are_made_and_linked(folder: Path, html: str, markdown: str) -> None:
    linked = re.findall(r'<img src="(figures/[^"]+)"', markdown)
    assert len(linked) == len(set(linked)) == 2 + 2 + 2 * 3
    for name in linked:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    embedded = [a for tag, a in Reader(html).tags if tag == "img"]
    assert len(embedded) == len(linked)
    curves = [name for name in linked if "uma-curve" in name]
    rocs = [name for name in linked if "confidence_membership-roc" in name]
    assert len(curves) == len(rocs) == 2


def test_it_says_what_was_run(html: str, markdown: str) -> None:
    for text in (Reader(html).text, markdown):
        for part in ("palimpsest audit --data digits", "torch 2.13.0", "cores = 2", "0, 1", "f00d", "class=0"):
            assert part in text, part
        for verdict in Finding:
            assert VERDICTS[verdict] in text
        for part in ("few-records", "12 records", "wide intervals"):
            assert part in text
    assert "50.0%" in next(row for row in Reader(html).rows if row.split()[:1] == ["finetune"] and "1,000" in row)


MISSING = {
    "no uma": {"examiners": made.EXAMINERS[1:]},
    "no membership": {"examiners": (made.EXAMINERS[0], *made.EXAMINERS[2:])},
    "attacks only": {"examiners": made.EXAMINERS[:2]},
    "verifiers only": {"examiners": made.EXAMINERS[2:]},
    "no verdict": {"verdicts": [], "warnings": [], "comparisons": []},
    "no recipe": {"recipe": None, "command": "", "model": {}, "data": {"name": "table"}},
    "no methods": {"methods": ()},
    "bare": {"methods": (), "rounds": 0, "seeds": (0,), "verdicts": []},
}


@pytest.mark.parametrize("name", MISSING)
def test_a_report_is_made_from_what_there_is(name: str, tmp_path: Path) -> None:
    made.record(tmp_path, **{"seeds": (0,), "methods": ("finetune",), **MISSING[name]})
    reader, text = written(tmp_path)
    assert reader.headings[0] == "Verdicts"
    assert len(text) > 1000
    assert "None" not in reader.text
    assert "nan" not in reader.text.split()


def test_budgets_of_features_are_not_in_pixels(tmp_path: Path) -> None:
    record = made.record(tmp_path, methods=("finetune",), seeds=(0,), examiners=made.EXAMINERS[:1])
    records.write(record.model_copy(update={"data": {**record.data, "kind": "features"}}), tmp_path, {})
    reader, _ = written(tmp_path)
    tables = " ".join(reader.rows[: next(i for i, row in enumerate(reader.rows) if "Kind" in row)])
    assert "/255" not in tables
    assert "ε = 0.1255" in tables


def test_each_request_has_its_own_verdicts_and_curves(tmp_path: Path) -> None:
    made.record(tmp_path, methods=("finetune",), seeds=(0,), rounds=2)
    reader, text = written(tmp_path)
    assert "finetune (request 1)" in reader.text
    assert "finetune (request 2)" in reader.text
    assert len(set(re.findall(r"figures/uma-curve-[^\"]+", text))) == 2


def test_redacting_takes_the_images_out_of_an_earlier_report_too(tmp_path: Path) -> None:
    plain = made.record(tmp_path, methods=("finetune",), seeds=(0,), examiners=made.EXAMINERS[2:])
    made.with_images(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").write_bytes(b"of the user")
    report.write(tmp_path)
    assert list(tmp_path.glob("figures/record-*.png"))
    records.write(plain.model_copy(update={"redacted": True}), tmp_path, {})
    reader, text = written(tmp_path)
    assert not list(tmp_path.glob("figures/record-*.png"))
    assert "Attacked images" not in reader.headings
    assert "redacted" in reader.text
    assert "record-" not in text
    assert (tmp_path / "figures" / "mine.png").exists()


def test_missing_scores_leave_the_numbers(tmp_path: Path) -> None:
    record = made.record(tmp_path, examiners=made.EXAMINERS[1:])
    for path in (tmp_path / "scores").iterdir():
        path.unlink()
    reader, _ = written(tmp_path)
    assert f"The scores of {len(record.cells)} cells could not be resampled" in reader.text
    subject = next(c for c in record.comparisons if c.difference.name == "test_accuracy").subject
    assert number("test_accuracy", subject) in reader.text


def test_a_record_makes_the_report_import_nothing(tmp_path: Path) -> None:
    record = made.record(tmp_path, examiners=made.EXAMINERS[:1])
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('imported')")
    cells = [cell.model_copy(update={"attack": "hostile_module:Attack"}) for cell in record.cells]
    records.write(record.model_copy(update={"cells": cells}), tmp_path, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        reader, _ = written(tmp_path)
    assert "Attack: hostile_module:Attack" in reader.headings


def test_writing_again_gives_the_same_bytes(folder: Path, html: str, markdown: str) -> None:
    before = {path: path.read_bytes() for path in folder.glob("figures/*.png")}
    paths = report.write(folder)
    assert paths[:2] == [folder / "report.html", folder / "report.md"]
    assert (paths[0].read_text(), paths[1].read_text()) == (html, markdown)
    assert {path: path.read_bytes() for path in paths[2:]} == before


def test_no_record_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"expected a record\.json that an audit wrote"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unreadable_image_file_is_one_clear_line(tmp_path: Path) -> None:
    made.record(tmp_path, methods=(), seeds=(0,), examiners=made.EXAMINERS[2:])
    (tmp_path / "panels.safetensors").write_bytes(b"not images at all")
    with pytest.raises(BadInput, match="delete the file"):
        compose(tmp_path)
