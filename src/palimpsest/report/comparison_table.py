"""The differences of two audits as text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from palimpsest.report.numbers import Key
from palimpsest.report.wording import epsilon, interval, number, subject

FIELDS = ("request", "model", "by", "measure", "seeds", "first", "second", "difference", "low", "high", "resampling")


@dataclass(frozen=True)
class Row:
    """One measure in both audits. by: attack or verifier. difference: second minus first. how: what its interval is."""

    request: int
    unlearner: str
    target: str
    by: str
    key: Key
    seeds: tuple[int, ...]
    first: float
    second: float
    difference: float
    low: float
    high: float
    how: str

    @property
    def model(self) -> str:
        return subject(self.target, self.unlearner)


@dataclass(frozen=True)
class ComparisonTable:
    """Rows in the first audit's order. notes: what makes the audits differ, and what only one of them has."""

    first: str
    second: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    image: bool = True

    def measure(self, row: Row) -> str:
        """uma.forget_accuracy at ε = 8/255."""
        name, at = row.key
        parts = [f"ε = {epsilon(v, self.image)}" if axis == "epsilon" else f"{axis} = {v:g}" for axis, v in at]
        return name + (" at " + ", ".join(parts) if parts else "")

    def cells(self) -> Iterator[tuple[str, ...]]:
        """The table as words, headings first."""
        several = any(row.request for row in self.rows)
        head = ("model", "measure", "seeds", "first", "second", "second minus first", "95% interval", "resampling")
        yield (("request",) if several else ()) + head
        for row in self.rows:
            name = row.key[0]
            yield ((str(row.request + 1),) if several else ()) + (
                row.model,
                self.measure(row),
                " ".join(map(str, row.seeds)),
                number(name, row.first),
                number(name, row.second),
                number(name, row.difference, signed=True),
                interval(name, row.low, row.high, signed=True).replace("\u00a0", " "),
                row.how,
            )

    def text(self) -> str:
        """Columns in plain text, notes below."""
        table = [tuple(" ".join(cell.split()) for cell in row) for row in self.cells()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        head = [f"first:  {self.first}", f"second: {self.second}", ""]
        return (
            "\n".join([*head, *lines, *(["", *(f"note: {note}" for note in self.notes)] if self.notes else [])]) + "\n"
        )

    def csv(self) -> str:
        """One line per row with unrounded numbers; shares are fractions in [0, 1]."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(FIELDS)
        for row in self.rows:
            seeds, numbers = " ".join(map(str, row.seeds)), (row.first, row.second, row.difference, row.low, row.high)
            writer.writerow((row.request, row.model, row.by, self.measure(row), seeds, *numbers, row.how))
        return buffer.getvalue()

    def latex(self) -> str:
        """A `tabular` with the rules of the package booktabs."""
        head, *body = self.cells()
        lines = [rf"% first: {_comment(self.first)}", rf"% second: {_comment(self.second)}"]
        lines += [rf"\begin{{tabular}}{{{'l' * len(head)}}}", r"\toprule", _latex_row(head), r"\midrule"]
        lines += [_latex_row(row) for row in body]
        lines += [r"\bottomrule", r"\end{tabular}", *(f"% note: {_comment(note)}" for note in self.notes)]
        return "\n".join(lines) + "\n"


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "ε": r"$\varepsilon$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _latex_row(cells: Sequence[str]) -> str:
    # a row that begins with a bracket would be taken for an option of the line break before it
    words = [f"{{{text}}}" if text.startswith("[") else text for text in map(escape_latex, cells)]
    return " & ".join(words) + r" \\"


def _comment(text: str) -> str:
    return " ".join(text.split())
