"""Two audits side by side: differences of the same measures on matching models, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest import record as records
from palimpsest.measures.intervals import difference
from palimpsest.record import SHARED, Record
from palimpsest.report.comparison_table import ComparisonTable, Row
from palimpsest.report.numbers import Numbers, averaged
from palimpsest.report.wording import RADII, count, examiner, set_to, short, some, subject
from palimpsest.types import Array, Measure


def compare(a: Path, b: Path, *, per_seed: bool = False) -> ComparisonTable:
    """Second minus first, for every measure that both audits have of the same unlearner, target, attack or verifier, request and
    parameter, over the seeds that both have (each seed in a row of its own with `per_seed`).

    Intervals (95 %) cover the records and, over several seeds, the spread between seeds. "paired" where both audits' stored
    scores are of the same records, which are then resampled together. "unpaired": each audit's records are resampled on their
    own. "from ends": scores are gone, and the ends of both intervals are combined by squares and added (Newcombe 1998).
    Raises BadInput where a folder has no record.
    """
    one, other = (Numbers(records.read(folder), folder, resample=True) for folder in (a, b))
    places = set(_places(other))
    rows = [row for place in _places(one) if place in places for row in _rows(one, other, place, per_seed)]
    image = one.record.data.get("kind") == "image" and other.record.data.get("kind") == "image"
    return ComparisonTable(str(a), str(b), tuple(rows), tuple(_notes(one, other)), image)


LONG = 200
"""Characters of a text in a note."""
Place = tuple[str, str, str, int]
"""Attack or verifier, target, unlearner (of shared controls: the learner, also where it is the audit's own), request."""


def _places(numbers: Numbers) -> list[Place]:
    """All models that something was measured on."""
    return [
        (by, target, label or _own(numbers, target), request)
        for request in numbers.requests
        for by in [*numbers.attacks, *numbers.verifiers]
        for target, label in numbers.subjects(by, request)
        if any(cell.status == "ok" for _, cell in numbers.cells(by, target, label, request))
    ]


def _own(numbers: Numbers, target: str) -> str:
    return str(numbers.record.learner.get("name", "plain")) if target in SHARED else ""


def _there(numbers: Numbers, place: Place) -> Place:
    """The place as these numbers call it: controls of an audit's own learner have no label there."""
    by, target, label, request = place
    return by, target, "" if label == _own(numbers, target) else label, request


def _rows(one: Numbers, other: Numbers, place: Place, per_seed: bool) -> Iterator[Row]:
    by, target, label, request = place
    shown = "" if all(label == _own(numbers, target) for numbers in (one, other)) else label
    same = {seed for seed, units in _units(one, place).items() if units and units == _units(other, place).get(seed)}
    alike = one.record.data.get("fingerprint") == other.record.data.get("fingerprint")
    for key in one.keys(by):
        first, second = (
            numbers.series(by, key, target, _there(numbers, place)[2], request) for numbers in (one, other)
        )
        seeds = [seed for seed in first if seed in second]
        for group in [[seed] for seed in seeds] if per_seed else [seeds] if seeds else []:
            mine, theirs = [first[seed] for seed in group], [second[seed] for seed in group]
            gap, how = gap_of(mine, theirs, alike and same.issuperset(group))
            means = [float(np.mean([measure.value for measure in series])) for series in (mine, theirs)]
            ends = (gap.low, gap.high)
            yield Row(request, shown, target, by, key, tuple(group), means[0], means[1], gap.value, *ends, how)


def _units(numbers: Numbers, place: Place) -> dict[int, list[tuple[list[str], list[int]]]]:
    """Seed → what was scored in each replica: records, and the groups that they are in."""
    found: dict[int, list[tuple[list[str], list[int]]]] = {}
    for seed, scores in numbers.scores(*_there(numbers, place)):
        groups = scores.arrays["group"].tolist() if "group" in scores.arrays else []
        found.setdefault(seed, []).append((scores.ids.tolist(), groups))
    return found


def gap_of(first: Sequence[Measure], second: Sequence[Measure], paired: bool) -> tuple[Measure, str]:
    """Mean over seeds of second minus first with its interval, and how that was made."""
    if any(measure.replicates is None for measure in [*first, *second]):
        return _from_ends(averaged(first), averaged(second)), "from ends"
    if paired:
        return difference(first[0].name, second, first), "paired"
    apart = [replace(m, replicates=_shuffled(m.replicates)) for m in first if m.replicates is not None]
    return difference(first[0].name, second, apart), "unpaired"


def _shuffled(replicates: Array) -> Array:
    """In the same other order for all seeds, which may share records."""
    shuffled: Array = replicates[np.random.default_rng(0).permutation(len(replicates))]
    return shuffled


def _from_ends(first: Measure, second: Measure) -> Measure:
    value = second.value - first.value
    low = value - float(np.hypot(second.value - second.low, first.high - first.value))
    high = value + float(np.hypot(second.high - second.value, first.value - first.low))
    return Measure(first.name, value, low, high, first.n + second.n, first.at)


def _notes(one: Numbers, other: Numbers) -> Iterator[str]:
    """What a reader must know before reading the differences."""
    a, b = one.record, other.record
    for what in ("command", "model", "learner", "recipe", "versions", "hardware", "seeds"):
        if getattr(a, what) != getattr(b, what):
            yield f"{what} differs: {_told(getattr(a, what), getattr(b, what))}"
    if a.data.get("fingerprint") != b.data.get("fingerprint"):
        yield "the data differ, so nothing is paired by record"
    if [(r.seed, r.index, r.ids) for r in a.requests] != [(r.seed, r.index, r.ids) for r in b.requests]:
        yield "the forgotten records differ"
    ways = [record.settings.get("homes", {}) for record in (a, b)]
    for name in ways[0]:
        if name in ways[1] and ways[0][name] != ways[1][name]:
            yield f"{name} differs: {_told(*(way[name]['learner'] | way[name]['recipe'] for way in ways))}"
    yield from _settings(a, b)
    for name, mine, theirs in (("first", one, other), ("second", other, one)):
        there = set(_places(theirs))
        alone = [
            f"{subject(target, '' if label == _own(mine, target) else label)} ({by})"
            for by, target, label, _ in _places(mine)
            if (by, target, label, _) not in there
        ]
        if alone:
            yield f"only in the {name}: {some(alone)}"
        lost = [cell for cell in mine.record.cells if cell.status != "ok"]
        if lost:
            yield f"without numbers in the {name}: {count(len(lost), 'cell')}, the first {lost[0].status}: {short(lost[0].reason)}"


def _settings(a: Record, b: Record) -> Iterator[str]:
    def used(record: Record) -> dict[str, dict[str, Any]]:
        methods = {cell.unlearner: cell.settings for cell in record.cells if cell.unlearner}
        return methods | {examiner(cell): cell.attack_settings for cell in record.cells}

    first, second = used(a), used(b)
    for name in first:
        for field, value in first[name].items() if name in second else ():
            if value != second[name].get(field):
                yield f"{name}.{field} differs: {_told(value, second[name].get(field))}"


def _told(*values: object) -> str:
    """Two values side by side; of tables only what differs, of long texts the part from where they part."""
    if all(isinstance(value, dict) for value in values):
        one, other = (dict(value) for value in values)  # type: ignore[call-overload]
        unlike = [key for key in {**one, **other} if key not in one or key not in other or one[key] != other[key]]
        if "name" in unlike:
            texts = [set_to(one), set_to(other)]
        else:
            parts = [{key: table[key] for key in unlike if key in table} for table in (one, other)]
            texts = [
                ", ".join(f"{key} = {set_to(value, key in RADII)}" for key, value in part.items()) for part in parts
            ]
    else:
        texts = [set_to(value) if isinstance(value, dict) else str(value) for value in values]
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    if max(map(len, texts)) > LONG and same > LONG // 2:
        texts = ["…" + text[same - 20 :] for text in texts]
    return " | ".join(short(text, LONG) or "nothing" for text in texts)
