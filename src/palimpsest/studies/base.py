"""What a study is: the audits behind a paper's experiment, the numbers that the paper prints of it, claims fixed before the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from palimpsest.catalog import Checked
from palimpsest.errors import ContractError

Scale = Literal["small", "paper"]
SCALES: tuple[Scale, ...] = ("small", "paper")


@dataclass(frozen=True)
class Where:
    """A number of a study's audits. What is left empty is filled in by another: `row | column`.

    part: name of the audit. target, method: whose model ("retrained", or "unlearned" with the method's label). measure, at: as in
    the record; "cost.samples" and the like are what making the model cost. minus: the control that it is taken minus of, as in the
    record's comparisons; over: the method, or the control such as "original", whose number it is a share of; both for tables only.
    times: what the measure is multiplied by to be as the paper prints it (100 for per cent).
    """

    part: str = ""
    target: str = ""
    method: str = ""
    measure: str = ""
    at: Mapping[str, float] = field(default_factory=dict)
    minus: str = ""
    over: str = ""
    times: float = 1.0

    def __or__(self, other: Where) -> Where:
        return Where(
            self.part or other.part,
            self.target or other.target,
            self.method or other.method,
            self.measure or other.measure,
            self.at or other.at,
            self.minus or other.minus,
            self.over or other.over,
            self.times if self.times != 1 else other.times,
        )

    def __str__(self) -> str:
        at = [f"{name} {value:.4g}" for name, value in self.at.items()]
        apart = [f"{word} {name}" for word, name in (("minus", self.minus), ("over", self.over)) if name]
        return ", ".join(text for text in (self.part, self.target, self.method, self.measure, *at, *apart) if text)


@dataclass(frozen=True)
class Table:
    """A table of the paper. printed: row → its numbers in the order of the columns, None where the paper has none; rows and columns
    without printed numbers are ours, such as a control. drawn: columns that are drawn as bars too, a bar each row."""

    title: str
    rows: Mapping[str, Where]
    columns: Mapping[str, Where]
    printed: Mapping[str, Sequence[float | int | None]] = field(default_factory=dict)
    drawn: Sequence[str] = ()

    def __post_init__(self) -> None:
        if strange := [name for name in self.drawn if name not in self.columns]:
            raise ContractError(f"table {self.title!r}: got {strange} to be drawn, expected columns of it")

    def published(self, row: str, column: str) -> float | int | None:
        numbers = self.printed.get(row)
        place = list(self.columns).index(column)
        return numbers[place] if numbers is not None and place < len(numbers) else None

    def within(self, part: str) -> Table:
        """The same table of another audit."""
        return replace(self, rows={name: replace(where, part=part) for name, where in self.rows.items()})


@dataclass(frozen=True)
class Claim:
    """A weighted sum of numbers lies above or below a bound, in units of the measures (shares, not per cent).

    printed: the same sum over the paper's own numbers, None where it prints none. fixed: it is of these seeds' models and no
    others, so that its interval is a bootstrap over the records.
    """

    text: str
    terms: tuple[tuple[float, Where], ...]
    above: float | None = None
    below: float | None = None
    printed: float | None = None
    fixed: bool = False

    @property
    def bound(self) -> tuple[Literal["above", "below"], float]:
        """Side and bound. Raises ContractError where the claim has both or none."""
        if self.above is not None and self.below is None:
            return "above", self.above
        if self.below is not None and self.above is None:
            return "below", self.below
        raise ContractError(f"claim {self.text!r}: got {self.above} and {self.below}, expected one bound")


@dataclass(frozen=True)
class Curve:
    """A figure of the paper: a measure against a setting. lines: its name → (setting, where) of each point. share: whether the
    measure lies in [0, 1]."""

    title: str
    across: str
    upwards: str
    lines: Mapping[str, Sequence[tuple[float, Where]]]
    share: bool = True


@dataclass(frozen=True)
class Weighed:
    """A setting of a defence: what it leaves of a model's use, what leaks beside the same of a placebo, and both undefended."""

    setting: float
    use: Where
    leak: Where
    placebo: Where
    bare: Where
    bare_placebo: Where


@dataclass(frozen=True)
class Tradeoff:
    """What defences cost and buy: their settings' use, the higher the better, against what leaks, the lower the better.

    lines: a defence → its settings, the weakest first. The front is what no other setting, of any defence, beats in both.
    """

    title: str
    across: str
    upwards: str
    lines: Mapping[str, Sequence[Weighed]]


@dataclass(frozen=True)
class Study(Checked, ABC):
    """Base of all studies: data, no code that runs. `palimpsest.reproduce` carries them out.

    paper: what it reproduces. about: one line. tables, curves, tradeoffs, claims: see there; claims are decided by intervals at
    1 − 5 % divided by the number of claims that could be measured (Bonferroni). notes: what a reader must know, such as what the
    paper leaves out. pictured: audits whose images are shown.
    """

    kind: ClassVar[str] = "studies"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    about: ClassVar[str] = ""
    tables: ClassVar[tuple[Table, ...]] = ()
    curves: ClassVar[tuple[Curve, ...]] = ()
    tradeoffs: ClassVar[tuple[Tradeoff, ...]] = ()
    claims: ClassVar[tuple[Claim, ...]] = ()
    notes: ClassVar[tuple[str, ...]] = ()
    pictured: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        """The audits, by name, as fields of `presets.Choices`."""
