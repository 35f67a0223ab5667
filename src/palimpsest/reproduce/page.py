"""The page of a study: measured numbers with the published ones, claims, figures; as HTML and as Markdown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from palimpsest.catalog import name_of
from palimpsest.disk import disk_errors, write_atomically
from palimpsest.report import html, markdown
from palimpsest.report.blocks import Block, Code, Entry, Figure, Gallery, Page, Paragraph, Section, Table, Terms
from palimpsest.report.figures import Course, Mark, against_setting, side_by_side
from palimpsest.report.grid import TOLD, sheets
from palimpsest.reproduce import tradeoff
from palimpsest.reproduce.result import PARTS, CellRow, ClaimRow, Measured, Result
from palimpsest.studies.base import Curve, Study
from palimpsest.studies.base import Table as Numbers

FIGURES = "figures"
ONE_SEED = "Over one seed an interval covers the records; how much training's luck would change, it does not say."


def write(study: Study, result: Result, folder: Path) -> None:
    """`report.html`, which needs nothing else, and `report.md` with its images in `figures/`."""
    made = compose(study, result, folder)
    with disk_errors(folder):
        write_atomically(folder / "report.html", html.render(made).encode())
        images = made.files()
        if images:
            (folder / FIGURES).mkdir(exist_ok=True)
        for name, png in images.items():
            write_atomically(folder / FIGURES / name, png)
        write_atomically(folder / "report.md", markdown.render(made, FIGURES).encode())


def compose(study: Study, result: Result, folder: Path) -> Page:
    name = name_of(study).replace("_", "-")
    states = [claim.state for claim in result.claims]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    curves = [drawn for place, curve in enumerate(study.curves) if (drawn := _curve(result, curve, place))]
    tables = tuple(block for table in study.tables for block in _table(result, table.title))
    sections = [Section("claims", "Claims", (_claims(result),))] if result.claims else []
    sections.append(Section("tables", "Published and measured", tables))
    bars = [drawn for place, table in enumerate(study.tables) for drawn in _bars(result, table, place)]
    if curves or bars:
        sections.append(
            Section("figures", "Figures", (Gallery((*bars, *curves), "Bands and whiskers are 95 % intervals."),))
        )
    if images := _images(study, result, folder):
        sections.append(Section("images", "Images", tuple(images)))
    weighed = [block for place, one in enumerate(study.tradeoffs) for block in tradeoff.blocks(result, one, place)]
    if weighed:
        sections.append(Section("tradeoffs", "What defences cost and buy", tuple(weighed)))
    if result.warnings:
        sections.append(Section("warnings", "Warnings", (_warnings(result),)))
    sections.append(Section("about", "How it was made", _about(study, result)))
    summary = (study.about[0].upper() + study.about[1:] + ".", f"Claims: {counted}." if counted else "No claims.")
    return Page(f"{name} at {result.told.scale} scale", summary, (), tuple(sections))


def _table(result: Result, title: str) -> list[Block]:
    """A table with the published number above the measured one; nothing where none of it was measured."""
    cells = [cell for cell in result.cells if cell.table == title]
    columns = list(dict.fromkeys(cell.column for cell in cells))
    note = "Measured, with its 95 % interval; below it what the paper prints, where it prints a number."
    if not any(cell.measured or cell.reason for cell in cells):
        cells = [cell for cell in cells if cell.published is not None]
        if not cells:
            return [Paragraph(f"{title}: not run at this scale.")]
        columns = [column for column in columns if column in {cell.column for cell in cells}]
        note = "Not run at this scale: what the paper prints."
    rows = []
    for name in dict.fromkeys(cell.row for cell in cells):
        mine = {cell.column: cell for cell in cells if cell.row == name}
        rows.append((Entry.of(name), *(_entry(mine.get(column)) for column in columns)))
    return [Table(("", *columns), tuple(rows), title, note)]


def _entry(cell: CellRow | None) -> Entry:
    if cell is None:
        return Entry.of("–", look="number")
    published = "" if cell.published is None else f"paper: {cell.published:,.10g}"
    if cell.measured is None and cell.reason:
        return Entry.of("failed", cell.reason, published, look="failed")
    if cell.measured is None:
        return Entry.of("–", published, look="number")
    return Entry.of(*measured(cell.measured), published, look="number")


def measured(found: Measured | None) -> tuple[str, ...]:
    """A measured number and its interval, with as many digits as its size asks for."""
    if found is None:
        return ("not measured",)
    digits = 3 if abs(found.high) <= 1.5 else 1 if abs(found.high) < 1000 else 0
    value, low, high = _written((found.value, found.low, found.high), digits)
    return value, f"[{low}, {high}]"


TINY = 1e-3
"""Where all ends of a number are below it, they are written as 2.3e-05: with three decimals nothing would be left of them."""


def _written(ends: tuple[float, ...], digits: int) -> list[str]:
    if 0 < max(map(abs, ends)) < TINY:
        return [f"{end:.1e}" if end else "0" for end in ends]
    return [f"{end:,.{digits}f}" for end in ends]


def _claims(result: Result) -> Table:
    rows = tuple(
        (Entry.of(c.text), Entry.of(c.state, c.reason, look="verdict"), *map(Entry.of, figures(c)))
        for c in result.claims
    )
    levels = {claim.level for claim in result.claims if claim.level is not None}
    note = "".join(
        f"Intervals at {100 * level:.2f} %, so that all of them hold together with 95 % (Bonferroni)."
        for level in levels
    )
    if any(claim.seeds == 1 for claim in result.claims):
        note += " " + ONE_SEED
    columns = ("claim", "state", "decides", "measured", "published")
    caption = "Fixed before the run"
    if result.told.revision > 1:
        caption += f"; the study's revision {result.told.revision}, changed after runs of earlier ones"
    return Table(columns, rows, caption, note)


def _images(study: Study, result: Result, folder: Path) -> list[Block]:
    """What the audits' own reports show of their images, a drawing per model."""
    made: dict[str, list[Figure]] = {}
    for part in study.pictured:
        if part in result.told.parts:
            place = result.told.parts[part]
            for kind, found in sheets(folder / PARTS / place, place).items():
                titled = [replace(one, title=f"{part}: {one.title}") for one in found]
                made.setdefault(kind, []).extend(titled if len(study.pictured) > 1 else found)
    return [
        block
        for kind, found in made.items()
        for block in (Gallery(tuple(found), TOLD[kind]), Terms(tuple((one.title, one.alt) for one in found)))
    ]


def _warnings(result: Result) -> Table:
    """What the audits' checks of themselves found."""
    rows = tuple(
        (Entry.of(w.part), Entry.of(w.name), Entry.of(w.about, w.message), Entry.of(w.meaning)) for w in result.warnings
    )
    return Table(("Audit", "Warning", "Raised for", "What it means"), rows, "The audits' checks of themselves")


def figures(claim: ClaimRow) -> tuple[str, str, str]:
    """The bound, the measured sum with its interval, and the paper's own sum."""
    bound = f"{claim.side} {claim.bound:g}"
    published = "" if claim.published is None else f"{claim.published:,.10g}"
    if claim.value is None or claim.low is None or claim.high is None:
        return bound, "", published
    digits = 3 if max(abs(claim.low), abs(claim.high)) < 100 else 0
    value, low, high = _written((claim.value, claim.low, claim.high), digits)
    return bound, f"{value} [{low}, {high}]", published


def _curve(result: Result, curve: Curve, place: int) -> Figure | None:
    mine = [point for point in result.points if point.figure == curve.title]
    lines = [
        Course(
            name,
            tuple((p.at, p.measured.value, p.measured.low, p.measured.high) for p in mine if p.line == name),
        )
        for name in dict.fromkeys(point.line for point in mine)
    ]
    if not lines:
        return None
    png = against_setting(lines, across=curve.across, upwards=curve.upwards, share=curve.share)
    how = ".1%" if curve.share else ".3g"
    ends = "; ".join(f"{line.name} from {line.points[0][1]:{how}} to {line.points[-1][1]:{how}}" for line in lines)
    return Figure(f"curve-{place}.png", curve.title, png, f"{curve.upwards} against {curve.across}: {ends}")


def _bars(result: Result, table: Numbers, place: int) -> list[Figure]:
    """The columns of a table that are to be drawn, as far as they were measured."""
    found = []
    for index, column in enumerate(table.drawn):
        marks = [
            Mark(cell.row, cell.measured.value, cell.measured.low, cell.measured.high, cell.published)
            for cell in result.cells
            if cell.table == table.title and cell.column == column and cell.measured is not None
        ]
        if marks:
            told = "; ".join(f"{mark.name} {mark.value:.3g}" for mark in marks)
            png = side_by_side(marks, across=column)
            found.append(Figure(f"bars-{place}-{index}.png", f"{table.title}: {column}", png, f"{column}: {told}"))
    return found


def _about(study: Study, result: Result) -> tuple[Block, ...]:
    told = result.told
    pairs = [("paper", study.paper), ("scale", told.scale), ("seconds", f"{result.seconds:,.0f} of the last run")]
    pairs += [("hardware", ", ".join(f"{k} {v}" for k, v in machine.items())) for machine in result.hardware]
    pairs += [("versions", ", ".join(f"{k} {v}" for k, v in used.items())) for used in result.versions]
    pairs += [(name, f"{PARTS}/{place}/report.html") for name, place in told.parts.items()]
    notes = [Paragraph(note) for note in study.notes]
    return (*notes, Code(told.command or "(from Python)"), Terms(tuple(pairs)))
