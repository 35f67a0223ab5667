"""The record's numbers, averaged over seeds. Measures are taken again from the stored scores only to resample them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.catalog import configure, find
from palimpsest.errors import PalimpsestError
from palimpsest.measures.intervals import average
from palimpsest.measures.pooling import measured, pooled
from palimpsest.record import SHARED, Cell, MeasureRow, Record, VerdictRow, read_scores
from palimpsest.report.wording import examiner
from palimpsest.types import Measure, Scores

TARGETS = ("unlearned", "bias-matched", "placebo")
"""What belongs to one method, in the order in which it is shown. `original` and `retrained` belong to all of one learner."""

UNREADABLE = (PalimpsestError, ImportError, KeyError, ValueError, TypeError)
"""What stored scores raise that are gone, damaged, or were made by another version. The record's own numbers stand then."""

Key = tuple[str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True)
class Average:
    """A measure averaged over the seeds that have it; `seeds` says how many those are."""

    measure: Measure
    seeds: int


@dataclass(frozen=True)
class Numbers:
    """The cells of a record by what they are about. resample: whether single numbers get replicates too, not only averages."""

    record: Record
    folder: Path
    resample: bool = False
    unreadable: set[int] = field(default_factory=set)  # places of cells whose scores do not give the record's numbers

    @cached_property
    def measures(self) -> list[dict[Key, Measure]]:
        """Per cell, its measures by name and parameter: always with the record's value and interval."""
        return [self._of(place, cell) for place, cell in enumerate(self.record.cells)]

    def _of(self, place: int, cell: Cell) -> dict[Key, Measure]:
        rows = {measure.key: measure for measure in map(as_measure, cell.measures)}
        if len(self.record.seeds) < 2 and not self.resample:
            return rows  # nothing to average: each number has its own interval
        again = measured_again(cell, self.folder) if cell.scores else {}
        for key, row in rows.items():
            twin = again.get(key)
            if twin and np.allclose([row.value, row.low, row.high], [twin.value, twin.low, twin.high], 1e-9, 1e-12):
                rows[key] = replace(row, replicates=twin.replicates)
            else:
                self.unreadable.add(place)
        return rows

    @cached_property
    def requests(self) -> list[int]:
        return sorted({cell.request for cell in self.record.cells} | {row.request for row in self.record.verdicts})

    @cached_property
    def attacks(self) -> list[str]:
        return list(dict.fromkeys(cell.attack for cell in self.record.cells if cell.attack))

    @cached_property
    def verifiers(self) -> list[str]:
        return list(dict.fromkeys(cell.verifier for cell in self.record.cells if cell.verifier))

    def methods(self, request: int) -> list[str]:
        named = [row.unlearner for row in self.record.verdicts if row.request == request]
        named += [cell.unlearner for cell in self.record.cells if cell.request == request and cell.unlearner]
        return list(dict.fromkeys(named))

    def verdict(self, label: str, request: int) -> VerdictRow | None:
        rows = (row for row in self.record.verdicts if (row.unlearner, row.request) == (label, request))
        return next(rows, None)

    @cached_property
    def homes(self) -> list[str]:
        """Labels of the controls that methods share: empty for the audit's own learner, then other learners' names."""
        return list(dict.fromkeys(self.label(cell) for cell in self.record.cells if cell.target in SHARED))

    def label(self, cell: Cell) -> str:
        """The method that a cell belongs to; of controls that methods share, their learner, empty for the audit's own."""
        own = self.record.learner.get("name", "plain")
        return cell.learner if cell.target in SHARED and cell.learner != own else cell.unlearner

    def owner(self, target: str, label: str) -> str:
        """Whose cells stand for `target` beside this method: its own, or its learner's where methods share them."""
        if target not in SHARED:
            return label
        own = self.record.learner.get("name", "plain")
        found = next((cell.learner for cell in self.record.cells if cell.unlearner == label), own)
        return "" if found == own else found

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str, int], list[tuple[int, Cell]]]:
        """Cells and their places by what they are about."""
        found: dict[tuple[str, str, str, int], list[tuple[int, Cell]]] = {}
        for place, cell in enumerate(self.record.cells):
            about = examiner(cell), cell.target, self.label(cell), cell.request
            found.setdefault(about, []).append((place, cell))
        return found

    def cells(self, by: str, target: str, label: str, request: int) -> list[tuple[int, Cell]]:
        return self._cells.get((by, target, label, request), [])

    def subjects(self, by: str, request: int) -> Iterator[tuple[str, str]]:
        """(target, method) of all that this attack or verifier was to be run on: shared controls first."""
        methods = [(target, label) for label in self.methods(request) for target in TARGETS]
        for target, label in [*((target, home) for home in self.homes for target in SHARED), *methods]:
            if self.cells(by, target, label, request):
                yield target, label

    @cached_property
    def _keys(self) -> dict[str, dict[Key, None]]:
        found: dict[str, dict[Key, None]] = {}
        for cell, measures in zip(self.record.cells, self.measures, strict=True):
            found.setdefault(examiner(cell), {}).update(dict.fromkeys(measures))
        return found

    def keys(self, by: str) -> list[Key]:
        """All measures that this attack or verifier gave anywhere."""
        return list(self._keys.get(by, ()))

    def series(self, by: str, key: Key, target: str, label: str, request: int) -> dict[int, Measure]:
        """Seed → the measure, several retrained controls of a seed averaged."""
        found: dict[int, list[Measure]] = {}
        for place, cell in self.cells(by, target, label, request):
            if key in self.measures[place]:
                found.setdefault(cell.seed, []).append(self.measures[place][key])
        return {seed: _pooled(replicas) for seed, replicas in found.items()}

    def mean(self, by: str, key: Key, target: str, label: str, request: int) -> Average | None:
        series = list(self.series(by, key, target, label, request).values())
        return Average(averaged(series), len(series)) if series else None

    def curve(self, by: str, name: str, target: str, label: str, request: int) -> list[tuple[float, Measure]]:
        """A measure against ε, smallest first."""
        points = []
        for key in self.keys(by):
            found = self.mean(by, key, target, label, request) if key[0] == name and "epsilon" in dict(key[1]) else None
            if found:
                points.append((dict(key[1])["epsilon"], found.measure))
        return sorted(points, key=lambda point: point[0])

    def difference(self, by: str, key: Key, label: str, request: int, minus: str) -> MeasureRow | None:
        """The record's own paired difference from a control."""
        attack = by if by in self.attacks else None
        for row in self.record.comparisons:
            same = (row.unlearner, row.request, row.attack, row.minus) == (label, request, attack, minus)
            if same and as_measure(row.difference).key == key:
                return row.difference
        return None

    def scores(self, by: str, target: str, label: str, request: int) -> Iterator[tuple[int, Scores]]:
        """(seed, stored scores) of each seed and replica, as far as they can be read."""
        for place, cell in self.cells(by, target, label, request):
            if cell.scores:
                try:
                    yield cell.seed, read_scores(self.folder, cell.scores)
                except UNREADABLE:
                    self.unreadable.add(place)


def measured_again(cell: Cell, folder: Path) -> dict[Key, Measure]:
    """The cell's measures from its stored scores, with replicates; empty where that cannot be done.

    A record never makes this import code: a class of the user's is used only where its module is already loaded.
    """
    name = examiner(cell)
    if ":" in name and name.partition(":")[0] not in sys.modules:
        return {}
    try:
        taker = configure(find("attacks" if cell.attack else "verifiers", name), cell.attack_settings, name)
        return {measure.key: measure for measure in measured(read_scores(folder, str(cell.scores)), taker.measure)}
    except UNREADABLE:
        return {}


def as_measure(row: MeasureRow) -> Measure:
    return Measure(row.name, row.value, row.low, row.high, row.n, dict(row.at))


def averaged(series: Sequence[Measure]) -> Measure:
    """Mean over seeds. One seed keeps its own interval; several have that of `intervals.average`, or, without scores to resample,
    one from the lowest to the highest end of the seeds' intervals."""
    if len(series) == 1:
        return series[0]
    if any(measure.replicates is None for measure in series):
        return _spanned(series, min, max)
    return average(series[0].name, series)


def _pooled(replicas: Sequence[Measure]) -> Measure:
    if any(measure.replicates is None for measure in replicas):
        return _spanned(replicas, np.mean, np.mean) if len(replicas) > 1 else replicas[0]
    return pooled(replicas)


def _spanned(series: Sequence[Measure], low: Any, high: Any) -> Measure:
    first, value = series[0], float(np.mean([measure.value for measure in series]))
    ends = float(low([measure.low for measure in series])), float(high([measure.high for measure in series]))
    return Measure(first.name, value, *ends, sum(measure.n for measure in series), first.at)
