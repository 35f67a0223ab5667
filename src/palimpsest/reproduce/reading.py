"""From the records of a study's audits to its tables and claims. Nothing here touches a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest import record as records
from palimpsest.audit.residual import EVERY, Key, over_controls
from palimpsest.errors import BadInput
from palimpsest.measures.intervals import LEVEL, REPLICATES, combination, difference
from palimpsest.record import SHARED, Cell
from palimpsest.report.numbers import Numbers, averaged
from palimpsest.report.wording import examiner
from palimpsest.reproduce.result import PARTS, CellRow, ClaimRow, Measured, PointRow, Result, State, Told, Warned
from palimpsest.studies.base import Claim, Curve, Study, Table, Where
from palimpsest.types import Measure

COST = "cost."


@dataclass(frozen=True)
class Reading:
    """A study's audits, open. folder: the study's, with the audits below `parts/`."""

    study: Study
    told: Told
    folder: Path

    @cached_property
    def numbers(self) -> dict[str, Numbers]:
        """The numbers of each audit, by its name. Raises BadInput where a record or scores are gone or damaged, and where the
        scores do not give the record's numbers."""
        places = {name: self.folder / PARTS / place for name, place in self.told.parts.items()}
        return {name: _checked(Numbers(records.read(place), place, resample=True)) for name, place in places.items()}

    def series(self, where: Where) -> dict[int, Measure]:
        """Seed → the measure, several retrained controls of a seed averaged; empty where it was not taken."""
        numbers = self.numbers.get(where.part)
        if numbers is None:
            return {}
        if where.measure.startswith(COST):
            return self._cost(where)
        key = where.measure, tuple(sorted(where.at.items()))
        label = numbers.owner(where.target, where.method)
        for by in [*numbers.attacks, *numbers.verifiers]:
            found = numbers.series(by, key, where.target, label, 0)
            if found:
                return found
        return {}

    def measured(self, where: Where) -> Measured | None:
        """Mean over seeds with its 95 % interval, in the paper's unit; or its difference from a control, or its share of what
        another method gives."""
        if where.minus:
            return self._difference(where)
        if where.over:
            return self._ratio(where)
        series = list(self.series(where).values())
        if not series:
            return None
        return _told(averaged(series), where, len(series))

    def failure(self, where: Where) -> str:
        """Why a number is missing that an audit was to give: what its attack or verifier failed of, or the whole model did; empty
        where nothing failed."""
        cells, by = self._cells_of(where), where.measure.partition(".")[0]
        failed = [cell for cell in cells if cell.status != "ok"]
        mine = failed if len(failed) == len(cells) else [cell for cell in failed if examiner(cell) == by]
        return next((cell.reason for cell in mine if cell.reason), "")

    def _cells_of(self, where: Where) -> list[Cell]:
        """The cells about a model, whatever examined it."""
        numbers = self.numbers.get(where.part)
        if numbers is None:
            return []
        label = numbers.owner(where.target, where.method)
        return [c for c in numbers.record.cells if (c.target, numbers.label(c)) == (where.target, label)]

    def _cost(self, where: Where) -> dict[int, Measure]:
        """Seed → what making the models cost that stand for it. The same for every record: resampling moves nothing."""
        name = where.measure.removeprefix(COST)
        models = {(c.seed, c.replica): c.cost.get(name, 0.0) for c in self._cells_of(where) if c.cost}
        seeds: dict[int, list[float]] = {}
        for (seed, _), spent in models.items():
            seeds.setdefault(seed, []).append(spent)
        means = {seed: float(np.mean(spent)) for seed, spent in seeds.items()}
        return {
            seed: Measure(where.measure, spent, spent, spent, 1, {}, np.full(REPLICATES, spent))
            for seed, spent in means.items()
        }

    def _difference(self, where: Where) -> Measured | None:
        """Minus a control, or minus every control as in `audit.residual`, taken again from the scores."""
        if where.minus == EVERY:
            return self._residual(where)
        own = self.series(replace(where, minus=""))
        other = self.series(replace(where, minus="", target=where.minus))
        seeds = _shared([own, other])
        if not seeds or where.target != "unlearned":
            return None
        found = difference(where.measure, [own[seed] for seed in seeds], [other[seed] for seed in seeds])
        return _told(found, where, len(seeds))

    def beyond(self, one: Where, other: Where) -> Measured | None:
        """The one minus the other, seed by seed, in units of the measure."""
        series = self.series(one), self.series(other)
        seeds = _shared(series)
        if not seeds:
            return None
        found = combination(
            one.measure, [(w, [each[s] for s in seeds]) for w, each in zip((1.0, -1.0), series, strict=True)]
        )
        return _told(found, Where(), len(seeds))

    def _ratio(self, where: Where) -> Measured | None:
        """Of means over seeds, with the interval of own − ratio · other, as a share of the other."""
        own = self.series(replace(where, over=""))
        bare = replace(where, over="", method="" if where.over in SHARED else where.over)
        other = self.series(replace(bare, target=where.over) if where.over in SHARED else bare)
        seeds = _shared([own, other])
        whole = float(np.mean([other[seed].value for seed in seeds])) if seeds else 0.0
        if not whole or where.target != "unlearned":
            return None
        ratio = float(np.mean([own[seed].value for seed in seeds])) / whole
        terms = [(1 / whole, [own[seed] for seed in seeds]), (-ratio / whole, [other[seed] for seed in seeds])]
        found = combination(where.measure, terms)
        moved = replace(found, value=ratio + found.value, low=ratio + found.low, high=ratio + found.high)
        return _told(moved, where, len(seeds))

    def _residual(self, where: Where) -> Measured | None:
        numbers, by = self.numbers.get(where.part), where.measure.partition(".")[0]
        if numbers is None or by not in numbers.attacks:
            return None
        primary = f"{by}.forget_accuracy"

        keys = [key for key in numbers.keys(by) if key[0] == primary]
        taken = {
            (key, target): self.series(Where(where.part, target, where.method, key[0], dict(key[1])))
            for key in keys
            for target in ("unlearned", "retrained", "bias-matched")
        }
        seeds = _shared([each for each in taken.values() if each])

        def series(key: Key, target: str) -> list[Measure] | None:
            return [taken[key, target][seed] for seed in seeds] if taken[key, target] and seeds else None

        matched = any(cell.target == "bias-matched" for cell in numbers.record.cells)
        wanted = where.measure, tuple(sorted(where.at.items()))
        found = {measure.key: measure for measure, _, _ in over_controls(by, keys, series, matched)}
        return _told(found[wanted], where, len(seeds)) if wanted in found else None

    def result(self) -> Result:
        """Every cell of every table, and every claim."""
        all_records = [numbers.record for numbers in self.numbers.values()]
        return Result(
            told=self.told,
            seconds=sum(record.seconds for record in all_records),
            hardware=_different(record.hardware for record in all_records),
            versions=_different(record.versions for record in all_records),
            cells=[cell for table in self.study.tables for cell in self._cells(table)],
            claims=self._claims(),
            points=[point for curve in self.study.curves for point in self.points(curve)],
            warnings=[
                Warned(part=name, **warning.model_dump())
                for name, numbers in self.numbers.items()
                for warning in numbers.record.warnings
            ],
        )

    def _cells(self, table: Table) -> Iterable[CellRow]:
        for row, one in table.rows.items():
            for column, other in table.columns.items():
                measured = self.measured(one | other)
                yield CellRow(
                    table=table.title,
                    row=row,
                    column=column,
                    published=table.published(row, column),
                    measured=measured,
                    reason="" if measured else self.failure(one | other),
                )

    def points(self, curve: Curve) -> Iterable[PointRow]:
        """What was measured of a figure, in units of its measure."""
        for line, points in curve.lines.items():
            for at, where in points:
                measured = self.measured(replace(where, times=1.0))
                if measured:
                    yield PointRow(figure=curve.title, line=line, at=at, measured=measured)

    def _claims(self) -> list[ClaimRow]:
        """Each claim by the interval of its sum, at a level that holds for all that could be measured together (Bonferroni)."""
        found = [[(weight, self.series(where)) for weight, where in claim.terms] for claim in self.study.claims]
        shared = [_shared([series for _, series in terms]) for terms in found]
        measured = sum(map(bool, shared))
        level = 1 - (1 - LEVEL) / max(1, measured)
        rows = []
        for claim, terms, seeds in zip(self.study.claims, found, shared, strict=True):
            paired = [(weight, [series[seed] for seed in seeds]) for weight, series in terms]
            if seeds:
                total = combination(claim.text, paired, level=level, fixed=claim.fixed)
                rows.append(_decided(claim, total, level, len(seeds)))
            else:
                reasons = [reason for _, where in claim.terms if (reason := self.failure(where))]
                rows.append(_undecided(claim, reasons))
        return rows


def _told(found: Measure, where: Where, seeds: int) -> Measured:
    """In the paper's unit."""
    value, low, high = (where.times * end for end in (found.value, found.low, found.high))
    return Measured(value=value, low=low, high=high, n=found.n, seeds=seeds)


def _checked(numbers: Numbers) -> Numbers:
    """The same, once every number of the record was taken again from its scores."""
    if numbers.measures and numbers.unreadable:
        cell = numbers.record.cells[min(numbers.unreadable)]
        who = f"{cell.attack or cell.verifier} on {cell.unlearner or cell.target}, seed {cell.seed}"
        file = numbers.folder / "scores" / f"{cell.scores}.safetensors"
        got = "no such file" if not file.exists() else "scores that do not give the record's numbers"
        raise BadInput(str(file), got=f"{got} ({who})", expected="the scores that the record names", do="run it again")
    return numbers


def _shared(series: Sequence[Mapping[int, Measure]]) -> list[int]:
    """Seeds that all of them have."""
    return sorted(set.intersection(*(set(one) for one in series))) if series else []


def _decided(claim: Claim, found: Measure, level: float, seeds: int) -> ClaimRow:
    side, bound = claim.bound
    beyond, short = found.low > bound, found.high < bound
    if side == "below":
        beyond, short = short, beyond
    state: State = "held" if beyond else "not held" if short else "not decidable"
    ends: dict[str, Any] = {"value": found.value, "low": found.low, "high": found.high}
    return ClaimRow(**_head(claim), state=state, **ends, level=level, seeds=seeds)


def _undecided(claim: Claim, reasons: Sequence[str]) -> ClaimRow:
    """Nothing was measured: something failed, or the scale does not have it."""
    state: State = "failed" if reasons else "not run"
    return ClaimRow(**_head(claim), state=state, reason="; ".join(dict.fromkeys(reasons)))


def _head(claim: Claim) -> dict[str, Any]:
    side, bound = claim.bound
    return {"text": claim.text, "side": side, "bound": bound, "published": claim.printed}


def _different(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each value once, in order."""
    found: list[dict[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
