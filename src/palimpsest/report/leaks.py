"""What the difference between the models before and after gives away of the deleted records."""

from __future__ import annotations

from palimpsest.record import LeakRow
from palimpsest.report.blocks import Entry, Section, Table
from palimpsest.report.numbers import Numbers
from palimpsest.report.tables import apart
from palimpsest.report.wording import number, title
from palimpsest.types import Leak

MEANINGS = {
    Leak.LEAKED: "Whoever holds both models learns more of the deleted records than of records in neither model.",
    Leak.NOT_LEAKED: "An attack that reads a known leak finds no more of the deleted records than of records in neither model.",
    Leak.INCONCLUSIVE: "Too uncertain to call, or the attack cannot even read a known leak.",
}
NOTE = (
    "Each attack compares the model before unlearning with the one after it. Its primary measure is read beside the placebo, the "
    "same guess judged on records that neither model was trained on, and beside the known leak, the original after one plain step "
    "on the deleted records. What leaks of a deletion is no sign that the model after it remembers anything: exact "
    "unlearning leaks too. That nothing was found is no proof that there is nothing."
)


def section(numbers: Numbers) -> Section | None:
    """None where no attack compares two models."""
    rows = numbers.record.leaks
    if not rows:
        return None
    several = len(numbers.requests) > 1
    columns = ("Method", "Attack", "Says", "Primary measure", "minus placebo", "known leak minus placebo", "Because")
    said = " ".join(
        f"{state.capitalize()}: {text}" for state, text in MEANINGS.items() if any(r.state == state for r in rows)
    )
    table = Table(columns, tuple(_row(row, several) for row in rows), "", f"{said} {NOTE}")
    return Section("leaks", "What deletions give away", (table,))


def _row(row: LeakRow, several: bool) -> tuple[Entry, ...]:
    name = row.minus_placebo.name if row.minus_placebo else ""
    value = Entry.of("–" if row.value is None else number(name, row.value), title(name) if name else "", look="number")
    gaps = [
        Entry.of(*apart(gap), look="number") if gap else Entry.of("–") for gap in (row.minus_placebo, row.known_leak)
    ]
    label = row.unlearner + (f" (request {row.request + 1})" if several else "")
    because = Entry(tuple(row.because), "list")
    return (Entry.of(label), Entry.of(row.attack), Entry.of(str(row.state), look="verdict"), value, *gaps, because)
