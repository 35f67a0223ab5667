"""From the records of a study's audits to its tables and claims. Nothing here touches a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from palimpsest import record as records
from palimpsest.audit.residual import EVERY, Key, over_controls
from palimpsest.errors import BadInput
from palimpsest.measures.intervals import LEVEL, combination, difference
from palimpsest.report.numbers import Numbers, averaged
from palimpsest.reproduce.result import PARTS, CellRow, ClaimRow, Measured, Result, State, Told
from palimpsest.studies.base import Claim, Study, Table, Where
from palimpsest.types import Measure


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
        key = where.measure, tuple(sorted(where.at.items()))
        label = numbers.owner(where.target, where.method)
        for by in [*numbers.attacks, *numbers.verifiers]:
            found = numbers.series(by, key, where.target, label, 0)
            if found:
                return found
        return {}

    def measured(self, where: Where) -> Measured | None:
        """Mean over seeds with its 95 % interval, in the paper's unit; or its difference from a control."""
        if where.minus:
            return self._difference(where)
        if where.measure.startswith("cost."):
            return self._cost(where)
        series = list(self.series(where).values())
        if not series:
            return None
        return _told(averaged(series), where, len(series))

    def _cost(self, where: Where) -> Measured | None:
        """Mean over the models that stand for it of what making them cost, from the lowest to the highest."""
        numbers = self.numbers.get(where.part)
        label = numbers.owner(where.target, where.method) if numbers else ""
        cells = (
            [c for c in numbers.record.cells if (c.target, numbers.label(c)) == (where.target, label)]
            if numbers
            else []
        )
        found = {
            (c.seed, c.replica): where.times * c.cost.get(where.measure.removeprefix("cost."), 0.0)
            for c in cells
            if c.cost
        }
        if not found:
            return None
        each = list(found.values())
        seeds = len({seed for seed, _ in found})
        return Measured(value=sum(each) / len(each), low=min(each), high=max(each), n=len(each), seeds=seeds)

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
        )

    def _cells(self, table: Table) -> Iterable[CellRow]:
        for row, one in table.rows.items():
            for column, other in table.columns.items():
                published = table.published(row, column)
                yield CellRow(
                    table=table.title,
                    row=row,
                    column=column,
                    published=published,
                    measured=self.measured(one | other),
                )

    def _claims(self) -> list[ClaimRow]:
        """Each claim by the interval of its sum, at a level that holds for all that could be measured together (Bonferroni)."""
        found = [[(weight, self.series(where)) for weight, where in claim.terms] for claim in self.study.claims]
        shared = [_shared([series for _, series in terms]) for terms in found]
        measured = sum(map(bool, shared))
        level = 1 - (1 - LEVEL) / max(1, measured)
        rows = []
        for claim, terms, seeds in zip(self.study.claims, found, shared, strict=True):
            paired = [(weight, [series[seed] for seed in seeds]) for weight, series in terms]
            rows.append(
                _decided(claim, combination(claim.text, paired, level=level) if seeds else None, level, len(seeds))
            )
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


def _decided(claim: Claim, found: Measure | None, level: float, seeds: int) -> ClaimRow:
    side, bound = claim.bound
    head: dict[str, Any] = {"text": claim.text, "side": side, "bound": bound, "published": claim.printed}
    if found is None:
        return ClaimRow(**head, state="not run")
    beyond, short = found.low > bound, found.high < bound
    if side == "below":
        beyond, short = short, beyond
    state: State = "held" if beyond else "not held" if short else "not decidable"
    return ClaimRow(**head, state=state, value=found.value, low=found.low, high=found.high, level=level, seeds=seeds)


def _different(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each value once, in order."""
    found: list[dict[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
