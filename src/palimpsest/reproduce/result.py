"""What came out of a study, as one versioned JSON file beside the audits that it was read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from palimpsest.disk import disk_errors, write_atomically
from palimpsest.errors import BadInput
from palimpsest.record import Warning

FORMAT = 1
FILE, PARTS = "study.json", "parts"
State = Literal["held", "not held", "not decidable", "failed", "not run"]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Told(_Row):
    """What was run. parts: the audits, by name → folder within `parts/`."""

    study: str
    revision: int
    scale: str
    command: str
    parts: dict[str, str]


class Measured(_Row):
    """A number with its 95 % interval, as the paper would print it; seeds: over how many."""

    value: float
    low: float
    high: float
    n: int
    seeds: int


class CellRow(_Row):
    """A cell of a table: what the paper prints, and what was measured; None where there is no such thing. reason: why there is
    none, where a model or a measure of it failed."""

    table: str
    row: str
    column: str
    published: float | None = None
    measured: Measured | None = None
    reason: str = ""


class ClaimRow(_Row):
    """A claim with the sum that decides it, its interval at `level` over so many seeds, and the bound. published: the paper's own
    sum. reason: why it failed."""

    text: str
    state: State
    side: Literal["above", "below"]
    bound: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    seeds: int = 0
    published: float | None = None
    reason: str = ""


class PointRow(_Row):
    """A point of a figure, in units of the measure. at: the setting it is drawn over."""

    figure: str
    line: str
    at: float
    measured: Measured


class WeighedRow(_Row):
    """A defence's setting in a trade-off, in units of the measures. beyond, bare: what leaks minus the placebo, defended and not.
    front: whether no other setting beats it."""

    tradeoff: str
    defence: str
    setting: float
    use: Measured
    leak: Measured
    beyond: Measured
    bare: Measured
    front: bool = False

    @property
    def read(self) -> bool:
        """Whether the attack reads the undefended deletion."""
        return self.bare.low > 0

    @property
    def hides(self) -> bool:
        """Whether the deletion is hidden from this attack, which reads it undefended."""
        return self.read and self.beyond.low <= 0 and self.beyond.high < self.bare.value


class Warned(Warning):
    """A warning of one of the audits about itself. part: the audit."""

    part: str


class Result(_Row):
    format: int = FORMAT
    told: Told
    seconds: float
    hardware: list[dict[str, Any]]
    versions: list[dict[str, str]]
    cells: list[CellRow]
    claims: list[ClaimRow]
    points: list[PointRow] = []
    tradeoffs: list[WeighedRow] = []
    warnings: list[Warned] = []


def write(result: Result, folder: Path) -> None:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, result.model_dump_json(indent=1).encode())


def read(folder: Path) -> Result:
    """The result in a folder. Raises BadInput where there is none, or it cannot be read."""
    path = folder / FILE
    try:
        return Result.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        expected = "a folder that `palimpsest reproduce` wrote"
        raise BadInput(str(path), got=error.strerror, expected=expected) from None
    except (ValueError, ValidationError) as error:
        got = str(error).splitlines()[0]
        raise BadInput(str(path), got=got, expected=f"a study's result of format {FORMAT}") from None
