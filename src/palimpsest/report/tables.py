"""Tables of measures: one row per model, every number with its interval, what failed with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest.audit.residual import EVERY
from palimpsest.record import SHARED
from palimpsest.report.blocks import Entry, Table
from palimpsest.report.numbers import Key, Numbers, as_measure
from palimpsest.report.wording import Number, count, epsilon, interval, number, subject, title

ORDER = ("test_accuracy", "retain_accuracy", "forget_accuracy", "heldout_accuracy", "train_accuracy")
"""Accuracies in the order of the columns."""


def measured(numbers: Numbers, by: str, key: Key, target: str, label: str, request: int) -> Entry:
    """The average over seeds with its interval; what failed says why."""
    found = numbers.mean(by, key, target, label, request)
    if found is None:
        return trouble(numbers, by, target, label, request)
    name, m = key[0], found.measure
    planned = len({cell.seed for _, cell in numbers.cells(by, target, label, request)})
    few = f"{found.seeds} of {planned} seeds" if found.seeds < planned else ""
    return Entry.of(number(name, m.value), interval(name, m.low, m.high), few, look="number")


def trouble(numbers: Numbers, by: str, target: str, label: str, request: int, limit: int = 70) -> Entry:
    """Why there is no number."""
    for _, cell in numbers.cells(by, target, label, request):
        if cell.status != "ok":
            reason = cell.reason if len(cell.reason) <= limit else cell.reason[: limit - 1] + "…"
            return Entry.of(cell.status, reason, look="failed")
    return Entry.of("–", look="number")


def difference(numbers: Numbers, by: str, key: Key, label: str, request: int, minus: str) -> Entry:
    """The record's paired difference from a control."""
    row = numbers.difference(by, key, label, request, minus)
    return Entry.of(*apart(row), look="number") if row else Entry.of("–", look="number")


def apart(row: Number) -> tuple[str, str]:
    """+71.9 and [+65.0, +78.1]; of shares, in percentage points."""
    return number(row.name, row.value, signed=True), interval(row.name, row.low, row.high, signed=True)


def named(target: str, label: str) -> Entry:
    """The first column's entry."""
    return Entry.of(subject(target, label), look="text" if target in (*SHARED, "unlearned") else "minor")


def accuracies(numbers: Numbers, request: int) -> Table | None:
    """Accuracies of every model, and how far the methods are from retraining."""
    keys = sorted((key for key in numbers.keys("accuracy") if key[0] in ORDER), key=lambda key: ORDER.index(key[0]))
    rows: list[tuple[Entry, ...]] = []
    strong: set[int] = set()
    for target, label in numbers.subjects("accuracy", request):
        row = [named(target, label)]
        row += [measured(numbers, "accuracy", key, target, label, request) for key in keys]
        for name in ("test_accuracy", "forget_accuracy"):
            own = target == "unlearned"
            gap = difference(numbers, "accuracy", (name, ()), label, request, "retrained") if own else Entry.of("")
            row.append(gap)
        if target in SHARED:
            strong.add(len(rows))
        rows.append(tuple(row))
    if not rows:
        return None
    gaps = ("Test minus retrained", "Forget minus retrained")
    note = (
        "Retain: records kept. Forget: records to be forgotten. Test: records never trained on, without classes forgotten whole. "
        "Held-out: never trained on, of the forgotten records' classes."
    )
    columns = ("Model", *(heading(key) for key in keys), *gaps)
    after = f"After request {request + 1}" if len(numbers.requests) > 1 else ""
    return Table(columns, tuple(rows), after, note, frozenset(strong))


def by_epsilon(numbers: Numbers, attack: str, request: int, name: str, image: bool) -> Table:
    """A measure of an attack for each ε, with the differences from the controls at the largest."""
    keys = sorted((key for key in numbers.keys(attack) if key[0] == name), key=lambda key: dict(key[1])["epsilon"])
    controls = compared(numbers, attack, keys[-1], request)
    largest = epsilon(dict(keys[-1][1])["epsilon"], image)
    columns = ["Model", *(f"ε = {epsilon(dict(key[1])['epsilon'], image)}" for key in keys)]
    columns += [f"At {largest}, minus {control}" for control in controls]
    rows: list[tuple[Entry, ...]] = []
    strong: set[int] = set()
    for target, label in numbers.subjects(attack, request):
        row = [named(target, label)]
        row += [measured(numbers, attack, key, target, label, request) for key in keys]
        for control in controls:
            own = target == "unlearned"
            row.append(difference(numbers, attack, keys[-1], label, request, control) if own else Entry.of(""))
        if target in SHARED:
            strong.add(len(rows))
        rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows), f"{attack}: {title(name)}", strong=frozenset(strong))


def plain(numbers: Numbers, by: str, request: int, keys: Sequence[Key], caption: str = "") -> Table:
    """Measures that have no parameter; below a method's number, its difference from the retrained and bias-matched control."""
    rows: list[tuple[Entry, ...]] = []
    strong: set[int] = set()
    for target, label in numbers.subjects(by, request):
        row = [named(target, label)]
        for key in keys:
            if target == "unlearned":
                row.append(judged(numbers, by, key, label, request))
            else:
                row.append(measured(numbers, by, key, target, label, request))
        if target in SHARED:
            strong.add(len(rows))
        rows.append(tuple(row))
    columns = ("Model", *(heading(key) for key in keys))
    return Table(columns, tuple(rows), caption or by, strong=frozenset(strong))


def residual(numbers: Numbers, attack: str, request: int, image: bool) -> Table | None:
    """Residual knowledge of each method at each radius, and the area between the curves; None where the record has none."""
    found = [
        row for row in numbers.record.comparisons if (row.attack, row.request, row.minus) == (attack, request, EVERY)
    ]
    if not found:
        return None
    keys = list(dict.fromkeys(as_measure(row.difference).key for row in found))
    rows = []
    for label in dict.fromkeys(row.unlearner for row in found):
        gaps = [numbers.difference(attack, key, label, request, EVERY) for key in keys]
        rows.append((Entry.of(label), *(Entry.of(*apart(gap), look="number") if gap else Entry.of("") for gap in gaps)))
    names = [f"ε = {epsilon(dict(key[1])['epsilon'], image)}" if key[1] else "Area between the curves" for key in keys]
    note = (
        "Attacked forget accuracy minus that of the retrained or the bias-matched control, whichever is higher. Above zero with "
        "its whole interval, the attack brings back what no control explains. The area is their mean over radii, from the smallest "
        "to the widest."
    )
    return Table(("Model", *names), tuple(rows), f"{attack}: residual knowledge", note)


NEGATIVE = ("retrained", "clean", "untrained", "bias-matched", "placebo")
"""Controls that an attack must find nothing in."""


def judged(numbers: Numbers, by: str, key: Key, label: str, request: int, controls: Sequence[str] = NEGATIVE) -> Entry:
    """A method's number; below it, how far it is from each of these controls, as the record says."""
    entry = measured(numbers, by, key, "unlearned", label, request)
    rows = [(control, numbers.difference(by, key, label, request, control)) for control in controls]
    lines = [f"{' '.join(apart(row))} vs {control}" for control, row in rows if row]
    return Entry.of(*entry.lines, *lines, look=entry.look)


def compared(numbers: Numbers, by: str, key: Key, request: int) -> list[str]:
    """Controls that the record compares any method with."""
    return [
        control
        for control in NEGATIVE
        if any(numbers.difference(by, key, label, request, control) for label in numbers.methods(request))
    ]


def heading(key: Key) -> str:
    """A measure's name as a column's heading."""
    text = title(key[0])
    return text[0].upper() + text[1:]


def failures(numbers: Numbers) -> Table | None:
    """Everything that failed or was skipped, with its whole reason; equal ones of several seeds in one row."""
    found: dict[tuple[str, ...], list[str]] = {}
    for cell in numbers.record.cells:
        if cell.status != "ok":
            by = cell.attack or cell.verifier or "none"
            request = str(cell.request + 1) if len(numbers.requests) > 1 else ""
            row = (cell.status, subject(cell.target, numbers.label(cell)), by, request, cell.reason)
            found.setdefault(row, []).append(str(cell.seed))
    if not found:
        return None
    rows = []
    for (status, who, by, request, reason), seeds in found.items():
        where = ", ".join(dict.fromkeys(seeds)) + (f" (request {request})" if request else "")
        rows.append(
            (
                Entry.of(who),
                Entry.of(by),
                Entry.of(status, look="failed"),
                Entry.of(where),
                Entry.of(reason or "no reason given"),
            )
        )
    total = count(sum(map(len, found.values())), "cell")
    return Table(
        ("Model", "Attack or verifier", "What happened", "Seeds", "Reason"), tuple(rows), f"{total} without numbers"
    )
