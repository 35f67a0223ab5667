"""The run record: one versioned JSON file that says what was run, what came out, and why the verdicts are what they are."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from palimpsest.disk import clear_scratch, disk_errors, write_atomically
from palimpsest.errors import BadInput, ContractError, NewerFormat
from palimpsest.types import Finding, Leak, Measure, Scores

FORMAT = 1
SHARED = ("original", "retrained", "clean", "untrained", "known-leak")
"""Targets that belong to all methods of a learner."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MeasureRow(_Row):
    """One measure with its 95 % interval; `at` says for which parameter, such as {"epsilon": 0.0314}."""

    name: str
    at: dict[str, float] = {}
    value: float
    low: float
    high: float
    n: int

    @staticmethod
    def of(measure: Measure) -> MeasureRow:
        m = measure
        return MeasureRow(name=m.name, at=dict(m.at), value=m.value, low=m.low, high=m.high, n=m.n)


class Cell(_Row):
    """One attack or verifier on one model of one seed.

    target: what the subject stands for. replica: which of several retrained controls. `unlearner` is empty for controls that belong
    to all methods of the same learner (original, retrained); a bias-matched control belongs to the method that it is matched to.
    attack is null for a verifier's cell. cost: what making the subject cost. scores: key of the stored scores.
    """

    unlearner: str = ""
    settings: dict[str, Any] = {}
    learner: str = "plain"
    prepared: str | None = None
    request: int = 0
    attack: str | None = None
    verifier: str | None = None
    attack_settings: dict[str, Any] = {}
    defence: str | None = None
    seed: int
    target: str
    replica: int = 0
    status: Literal["ok", "failed", "skipped"] = "ok"
    reason: str = ""
    seconds: float = 0.0
    cost: dict[str, float] = {}
    scores: str | None = None
    measures: list[MeasureRow] = []


class Comparison(_Row):
    """A method's measure minus a control's, averaged over seeds and paired by seed and record, with its interval."""

    unlearner: str
    settings: dict[str, Any] = {}
    request: int = 0
    attack: str | None = None
    minus: str
    subject: float
    control: float
    difference: MeasureRow


class VerdictRow(_Row):
    unlearner: str
    settings: dict[str, Any] = {}
    request: int = 0
    defence: str | None = None
    verdict: Finding
    because: list[str]


class LeakRow(_Row):
    """What one attack that compares the models before and after says of a method's deletion.

    value: its primary measure, a mean over seeds. minus_placebo: less that on records in neither model. known_leak: the same for
    the pair that is known to leak, which says whether the attack can tell at all.
    """

    unlearner: str
    settings: dict[str, Any] = {}
    request: int = 0
    defence: str | None = None
    attack: str
    state: Leak
    value: float | None = None
    minus_placebo: MeasureRow | None = None
    known_leak: MeasureRow | None = None
    because: list[str]


class Warning(_Row):
    """A self-check of the audit that found something. `name` is looked up in the docs: raised if, what it means."""

    name: str
    about: str
    message: str
    meaning: str


class Request(_Row):
    """What one seed's request named. `ids` are the truth; they are never derived again."""

    seed: int
    index: int
    selection: str
    ids: list[str]
    classes: list[int] = []


class Record(_Row):
    """All that an audit found, and everything needed to run it again. Its scores lie beside it, by key."""

    format: int = FORMAT
    command: str
    started: str
    seconds: float
    scale: str = "custom"
    versions: dict[str, str]
    hardware: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Any]
    learner: dict[str, Any]
    recipe: dict[str, Any] | None
    requests: list[Request]
    seeds: list[int]
    redacted: bool = False
    settings: dict[str, Any] = Field(default_factory=dict)
    cells: list[Cell]
    comparisons: list[Comparison] = []
    verdicts: list[VerdictRow] = []
    leaks: list[LeakRow] = []
    warnings: list[Warning] = []


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    names = ("palimpsest-ml", "torch", "numpy", "scipy", "scikit-learn", "datasets", "safetensors")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def hardware(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The machine, in words and numbers."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    where = torch.device(device)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory / 2**30, 1),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def write(record: Record, folder: Path, scores: Mapping[str, Scores]) -> Path:
    """Writes `record.json` and the scores that its cells name, each file whole or not at all."""
    with disk_errors(folder):
        (folder / "scores").mkdir(parents=True, exist_ok=True)
        clear_scratch(folder)
        for key, value in scores.items():
            write_atomically(folder / "scores" / f"{key}.safetensors", scores_to_bytes(value))
        path = folder / "record.json"
        write_atomically(path, record.model_dump_json(indent=1).encode())
    return path


def read(folder: Path) -> Record:
    """The record in a folder (or the record file itself). Raises BadInput, or NewerFormat for a newer version's."""
    path = folder / "record.json" if folder.is_dir() else folder
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        got = getattr(error, "strerror", None) or "a file that is not JSON"
        raise BadInput(str(path), got=got, expected="a record.json that an audit wrote") from None
    if isinstance(content, dict) and isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise NewerFormat(f"{path}: got format {content['format']}, expected at most {FORMAT}; update palimpsest-ml")
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(str(path), got=f"{first['msg']} at {where}", expected=f"a record of format {FORMAT}") from None


def read_scores(folder: Path, key: str) -> Scores:
    path = folder / "scores" / f"{key}.safetensors"
    expected = "the scores that the record names"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(str(path), got=error.strerror, expected=expected) from None
    try:
        return scores_from_bytes(data)
    except (ValueError, KeyError, ContractError, SafetensorError, TypeError) as error:
        got, do = f"a damaged file ({error})", "run the audit again: the store writes it anew"
        raise BadInput(str(path), got=got, expected=expected, do=do) from None


def scores_to_bytes(scores: Scores) -> bytes:
    arrays = {name: np.ascontiguousarray(values) for name, values in scores.arrays.items()}
    meta = {"unit": scores.unit, "ids": json.dumps(scores.ids.tolist()), "axes": json.dumps(scores.axes)}
    data: bytes = safetensors.numpy.save(arrays, metadata=meta)
    return data


def scores_from_bytes(data: bytes) -> Scores:
    size = int.from_bytes(data[:8], "little")
    meta = json.loads(data[8 : 8 + size])["__metadata__"]
    axes = {name: tuple(values) for name, values in json.loads(meta["axes"]).items()}
    arrays = safetensors.numpy.load(data)
    return Scores(meta["unit"], np.asarray(json.loads(meta["ids"]), dtype=np.str_), arrays, axes)
