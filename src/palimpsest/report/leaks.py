"""What the difference between the models before and after gives away of the deleted records."""

from __future__ import annotations

import numpy as np

from palimpsest.record import LeakRow
from palimpsest.report.blocks import Entry, Section, Table
from palimpsest.report.numbers import Numbers
from palimpsest.report.tables import apart
from palimpsest.report.wording import number, title
from palimpsest.types import Leak, Measure

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
EXPOSED = (
    "Mean rank of a class's deleted records among unseen ones of the class, and of how many; the least and the greatest distance "
    "of a recovered record from the true one, the root of the mean squared difference. The record exposed most is the one that is "
    "ranked highest, of equals the one that is recovered nearest; over several seeds by its mean. One figure for all hides who "
    "pays for it; means over a few records differ by luck too."
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
    exposed = tuple(line for row in rows if (line := _exposed(numbers, row, several)))
    if not exposed:
        return Section("leaks", "What deletions give away", (table,))
    heads = ("Method", "Attack", "Class ranked highest", "Class ranked lowest", "Nearest record", "Farthest record")
    most = Table((*heads, "Record exposed most"), exposed, "Who is exposed most", EXPOSED)
    return Section("leaks", "What deletions give away", (table, most))


def _exposed(numbers: Numbers, row: LeakRow, several: bool) -> tuple[Entry, ...] | None:
    """Classes and records that differ most in what is recovered of them; None where the attack recovers no records."""

    def mean(name: str, at: tuple[tuple[str, float], ...] = ()) -> Measure | None:
        found = numbers.mean(row.attack, (f"{row.attack}.{name}", at), "unlearned", row.unlearner, row.request)
        return found.measure if found else None

    ranks = {
        key[1][0][1]: rank
        for key in numbers.keys(row.attack)
        if key[0] == f"{row.attack}.rank" and key[1] and key[1][0][0] == "class" and (rank := mean("rank", key[1]))
    }
    ends = [mean(f"{word}_root_mse") for word in ("least", "most")]
    if not ranks or not all(ends):
        return None
    order = sorted(ranks, key=lambda label: ranks[label].value, reverse=True)
    cells = [Entry.of(f"{label:g}", f"{ranks[label].value:.2f} of {ranks[label].n}") for label in (order[0], order[-1])]
    near = [Entry.of(f"{end.value:.3f}", look="number") for end in ends if end]
    return (Entry.of(_label(row, several)), Entry.of(row.attack), *cells, *near, _record(numbers, row))


def _record(numbers: Numbers, row: LeakRow) -> Entry:
    """The record that is exposed most, with its rank and distance; a dash where no scores can be read."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _, scores in numbers.scores(row.attack, "unlearned", row.unlearner, row.request):
        for name, rank, mse in zip(scores.ids.tolist(), scores["rank"], scores["mse"], strict=True):
            found.setdefault(name, []).append((float(rank), float(np.sqrt(mse))))
    if not found:
        return Entry.of("–")
    means = {name: np.mean(values, axis=0) for name, values in found.items()}
    name = max(means, key=lambda one: (means[one][0], -means[one][1]))
    rank, distance = means[name]
    return Entry.of(name, f"{rank:.2f}", f"{distance:.3f}")


def _label(row: LeakRow, several: bool) -> str:
    return row.unlearner + (f" (request {row.request + 1})" if several else "")


def _row(row: LeakRow, several: bool) -> tuple[Entry, ...]:
    name = row.minus_placebo.name if row.minus_placebo else ""
    value = Entry.of("–" if row.value is None else number(name, row.value), title(name) if name else "", look="number")
    gaps = [
        Entry.of(*apart(gap), look="number") if gap else Entry.of("–") for gap in (row.minus_placebo, row.known_leak)
    ]
    because = Entry(tuple(row.because), "list")
    return (
        Entry.of(_label(row, several)),
        Entry.of(row.attack),
        Entry.of(str(row.state), look="verdict"),
        value,
        *gaps,
        because,
    )
