"""What the command line shows of a study: its tables and its claims."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from palimpsest.reproduce.page import ONE_SEED, figures, measured
from palimpsest.reproduce.result import Result
from palimpsest.studies.base import Study

__all__ = ["ONE_SEED", "claims", "tables"]


def tables(study: Study, result: Result) -> list[Table]:
    """Each table of a study of which something was measured: published, then measured with its interval."""
    found = []
    for one in study.tables:
        cells = {(cell.row, cell.column): cell for cell in result.cells if cell.table == one.title}
        if not any(cell.measured or cell.reason for cell in cells.values()):
            continue
        table = Table(title=f"{one.title}: published | measured [95 %]", title_justify="left", box=None, pad_edge=False)
        for column in ("", *one.columns):
            table.add_column(column, no_wrap=not column)
        for row in one.rows:
            shown = []
            for column in one.columns:
                cell = cells[row, column]
                published = "–" if cell.published is None else f"{cell.published:g}"
                number = f"failed: {cell.reason}" if cell.reason else " ".join(measured(cell.measured))
                shown.append(f"{published} | {number}")
            table.add_row(row, *shown)
        found.append(table)
    return found


def claims(result: Result) -> Table:
    """Claims with their state and what decides it."""
    table = Table(title="Claims, fixed before the run", title_justify="left", box=None, pad_edge=False)
    for column in ("claim", "state", "decides", "measured", "published"):
        table.add_column(column, no_wrap=column == "state")
    for claim in result.claims:
        style = {"held": "green", "not held": "red"}.get(claim.state, "yellow")
        table.add_row(claim.text, Text(claim.state, style=style), *figures(claim))
    return table
