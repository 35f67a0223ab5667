"""The report's first page: what was done, in a paragraph, and the verdict on every method."""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest.audit.yardstick import ACCURACY, YARDSTICKS
from palimpsest.report.blocks import Entry, Section, Table
from palimpsest.report.numbers import Key, Numbers
from palimpsest.report.tables import compared, difference, heading, measured
from palimpsest.report.wording import CONTROLS, VERDICTS, count, epsilon, listed, subject

PRIMARY = (".forget_accuracy", ".forget_recovery_rate")
"""Measures under attack that verdicts go by."""


def headline(numbers: Numbers) -> str:
    record = numbers.record
    return f"Unlearning audit: {record.data.get('title') or record.data.get('name', 'data')}, {listed(selections(numbers))}"


def selections(numbers: Numbers) -> list[str]:
    """What was asked to be forgotten, in order."""
    return list(dict.fromkeys(request.selection for request in sorted(numbers.record.requests, key=lambda r: r.index)))


def summary(numbers: Numbers) -> tuple[str, ...]:
    """What was done, for a reader who reads no further."""
    record, data = numbers.record, numbers.record.data
    methods = list(dict.fromkeys(label for request in numbers.requests for label in numbers.methods(request)))
    sizes = sorted({len(request.ids) for request in record.requests})
    several = f"{sizes[0]:,} to {sizes[-1]:,}" if len(sizes) > 1 else f"{sizes[0]:,}" if sizes else "no"
    model, title = record.model.get("name", "model"), data.get("title", data.get("name", "the data"))
    trained = f"{data['train']:,} records of {title}" if "train" in data else title
    each = " per request" if len(numbers.requests) > 1 else ""
    by = next((cell.prepared for cell in record.cells if cell.prepared), None)
    trained += f", some of them as {by} handed them in," if by else ""
    what = f"A model ({model}) was trained on {trained} and made to forget {listed(selections(numbers))} ({several} records{each})"
    how = f" with {count(len(methods), 'method')}, over {count(len(record.seeds), 'seed')}. "
    attacked = f"attacked with {listed(numbers.attacks)}" if numbers.attacks else "verified, without an attack,"
    retrained = any(cell.target == "retrained" for cell in record.cells)
    against = "and read against controls, " + (
        "above all models retrained without those records." if retrained else "but none of them is a retrained model."
    )
    alarms = []
    if record.warnings:
        them = "it" if len(record.warnings) == 1 else "them"
        alarms.append(f"{count(len(record.warnings), 'warning')} below: read {them} before you quote a number.")
    failed = sum(cell.status == "failed" for cell in record.cells)
    if failed:
        alarms.append(f"{count(failed, 'cell')} failed; they are listed with their reasons.")
    if record.redacted:
        alarms.append("Contents of records are left out of this report (redacted).")
    return tuple(part for part in (f"{what}{how}What came out was {attacked} {against}", " ".join(alarms)) if part)


def findings(numbers: Numbers) -> tuple[tuple[str, str, str], ...]:
    """Verdict, the methods that it fell on, and what it means."""
    found = []
    for verdict, meaning in VERDICTS.items():
        rows = [row for row in numbers.record.verdicts if row.verdict == verdict]
        methods: dict[str, list[int]] = {}
        for row in rows:
            methods.setdefault(row.unlearner, []).append(row.request)
        if methods:
            told = [label + _among(numbers, requests) for label, requests in methods.items()]
            found.append((str(verdict), listed(told), meaning))
    return tuple(found)


def _among(numbers: Numbers, requests: Sequence[int]) -> str:
    """Which of the requests a verdict fell on: nothing where there is one only."""
    if len(numbers.requests) < 2:
        return ""
    if set(requests) == set(numbers.requests):
        return " (every request)"
    return f" (request{'s' * (len(requests) > 1)} {spans(requests)})"


def spans(requests: Sequence[int]) -> str:
    """Places counted from 0 as people count them.

    >>> spans([0, 1, 2, 4, 6, 7])
    '1 to 3, 5, 7, 8'
    """
    runs: list[list[int]] = []
    for place in sorted(set(requests)):
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    told = [[f"{run[0] + 1} to {run[-1] + 1}"] if len(run) > 2 else [f"{place + 1}" for place in run] for run in runs]
    return ", ".join(text for run in told for text in run)


def _which(numbers: Numbers, request: int) -> str:
    return f" (request {request + 1})" if len(numbers.requests) > 1 else ""


def section(numbers: Numbers) -> Section:
    """The verdict on every method with the numbers that it goes by."""
    image = numbers.record.data.get("kind") == "image"
    attacked = _attacked(numbers)
    aucs = [(attack, key) for attack in numbers.attacks for key in numbers.keys(attack) if key[0].endswith(".auc")]
    stick = next((one for one in YARDSTICKS.values() if one.by in numbers.verifiers), ACCURACY)
    columns = ["Method", "Verdict", "Because", heading((stick.test, ())), f"{heading((stick.forget, ()))}, clean"]
    for attack, key, controls in attacked:
        columns.append(f"{heading(key)} under {attack}, ε = {epsilon(dict(key[1])['epsilon'], image)}")
        columns += [f"… minus {control}" for control in controls]
    columns += [f"AUC of {attack}" for attack, _ in aucs]
    keys: list[tuple[str, Key, list[str]]] = [(stick.by, (name, ()), []) for name in (stick.test, stick.forget)]
    keys += [*attacked, *((attack, key, []) for attack, key in aucs)]

    def row(first: tuple[Entry, ...], target: str, label: str, request: int) -> tuple[Entry, ...]:
        entries = list(first)
        for by, key, controls in keys:
            entries.append(measured(numbers, by, key, target, label, request))
            own = target == "unlearned"
            blank = Entry.of("")
            entries += [difference(numbers, by, key, label, request, c) if own else blank for c in controls]
        return tuple(entries)

    rows: list[tuple[Entry, ...]] = []
    shared: set[int] = set()
    for request in numbers.requests:
        for label in numbers.methods(request):
            verdict = numbers.verdict(label, request)
            finding = Entry.of(str(verdict.verdict), look="verdict") if verdict else Entry.of("none")
            because = tuple(verdict.because) if verdict else ("the record has no verdict on it",)
            first = (Entry.of(label + _which(numbers, request)), finding, Entry(because, "list"))
            rows.append(row(first, "unlearned", label, request))
        present = {cell.target for cell in numbers.record.cells if cell.request == request}
        for target, home in [
            (name, home) for home in numbers.homes for name in ("retrained", "original") if name in present
        ]:
            shared.add(len(rows))
            first = (
                Entry.of(subject(target, home) + _which(numbers, request)),
                Entry.of("control"),
                Entry.of(CONTROLS[target], look="list"),
            )
            rows.append(row(first, target, home, request))
    table = Table(tuple(columns), tuple(rows), "", intervals(numbers), frozenset(shared))
    return Section("verdicts", "Verdicts", (table,))


def _attacked(numbers: Numbers) -> list[tuple[str, Key, list[str]]]:
    """Per attack with a budget, its forget accuracy (or recovery rate) at the largest one, and the controls that it is
    compared with."""
    found = []
    for attack in numbers.attacks:
        keys = [key for key in numbers.keys(attack) if key[0].endswith(PRIMARY) and "epsilon" in dict(key[1])]
        if keys:
            largest = max(keys, key=lambda key: dict(key[1])["epsilon"])
            controls = {c: None for request in numbers.requests for c in compared(numbers, attack, largest, request)}
            found.append((attack, largest, list(controls)))
    return found


def intervals(numbers: Numbers) -> str:
    """What the brackets are."""
    numbers.measures  # noqa: B018 (reads the scores, so that the next line knows what could be read)
    if len(numbers.record.seeds) > 1:
        text = (
            "Numbers are means over seeds. Brackets are 95% intervals over records (bootstrap) and seeds (Student's t); "
            "differences from controls are paired by seed and record; those of percentages are in points."
        )
    else:
        text = (
            "Brackets are 95% intervals over records (exact binomial for shares, bootstrap for the rest), of one seed: they do "
            "not cover the luck of training. Differences from controls are paired by record; those of percentages are in points."
        )
    text += " Reasons for a verdict use wider intervals, corrected for the number of comparisons."
    lost = len(numbers.unreadable)
    if lost:
        cells = count(lost, "cell")
        text += f" The scores of {cells} could not be resampled; averages with them span the seeds' intervals instead."
    return text
