"""Small records with real measures, made from drawn scores instead of trained models."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest import record as records
from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.residual.uma import Uma
from palimpsest.audit import judge
from palimpsest.audit.board import Board, Place
from palimpsest.catalog import name_of, settings_of
from palimpsest.record import Cell, Record, Request, VerdictRow, Warning
from palimpsest.report.panels import Panel, save
from palimpsest.types import Cost, Finding, Measure, Scores
from palimpsest.verify.accuracy import Accuracy
from palimpsest.verify.relearn_time import RelearnTime

KNOWN = {"original": 0.95, "retrained": 0.05, "unlearned": 0.3, "bias-matched": 0.25}
"""Share of the forgotten records that each target names, clean."""

UMA = Uma(epsilon=(8 / 255, 32 / 255))
EXAMINERS = (UMA, ConfidenceMembership(), Accuracy(), RelearnTime())
SIZES = {"forget": 40, "retain": 60, "test": 50, "heldout": 30}


def ids(group: str) -> list[str]:
    return [f"{group}/{place}" for place in range(SIZES[group])]


def names(*groups: str) -> np.ndarray:
    return np.asarray([name for group in groups for name in ids(group)])


def accuracy(rng: np.random.Generator, known: float) -> Scores:
    group = np.repeat(np.arange(4), [SIZES[name] for name in ("retain", "forget", "test", "heldout")])
    share = np.array([0.97, known, 0.9, known])[group]
    return Scores(
        "record",
        names("retain", "forget", "test", "heldout"),
        {"group": group, "correct": rng.random(len(group)) < share},
    )


def uma(rng: np.random.Generator, known: float) -> Scores:
    n = SIZES["forget"] + SIZES["retain"] + SIZES["test"]
    group = np.repeat(np.arange(3), [SIZES[name] for name in ("forget", "retain", "test")])
    back = np.column_stack([rng.random(n) < min(1.0, known * factor) for factor in (1, 2, 3)])
    confidence = np.where(back, 0.9, 0.1) * rng.uniform(0.8, 1, back.shape)
    distance = np.where(back, 0.1, 1.2)
    arrays = {
        "group": group,
        "label": np.zeros(n, dtype=int),
        "original_prediction": np.zeros(n, dtype=int),
        "clean_prediction": 1 - back[:, 0].astype(int),
        "attacked_prediction": 1 - back[:, 1:].astype(int),
        "clean_confidence": confidence[:, 0],
        "attacked_confidence": confidence[:, 1:],
        "clean_distance": distance[:, 0],
        "distance": distance[:, 1:],
    }
    return Scores("record", names("forget", "retain", "test"), arrays, {"epsilon": UMA.epsilon})


def membership(rng: np.random.Generator, known: float) -> Scores:
    group = np.repeat(np.arange(4), [SIZES[name] for name in ("forget", "heldout", "retain", "test")])
    confidence = np.clip(rng.normal(np.array([known, 0.1, 0.9, 0.4])[group], 0.2), 0, 1)
    called = np.where(group < 2, confidence > 0.5, -1).astype(int)
    arrays = {"group": group, "confidence": confidence, "called_member": called}
    return Scores("record", names("forget", "heldout", "retain", "test"), arrays)


def relearning(rng: np.random.Generator, known: float) -> Scores:
    return Scores("record", names("forget"), {"relearned_at": rng.integers(0, 20, SIZES["forget"])})


DRAWN = {"uma": uma, "confidence_membership": membership, "accuracy": accuracy, "relearn_time": relearning}


@cache
def drawn(by: Any, words: str, known: float) -> tuple[Scores, tuple[Measure, ...]]:
    scores = DRAWN[name_of(by)](np.random.default_rng(list(words.encode())), known)
    return scores, by.measure(scores)


def add(board: Board, by: Any, place: Place, known: float, draw: int = 0) -> None:
    """A cell with scores drawn for this place; the same place and draw have the same scores."""
    words = f"{place.by}/{place.target}/{place.label}/{place.seed}/{place.request}/{place.replica}/{draw}"
    scores, measures = drawn(by, words, known)
    board.add(
        place,
        attack=by.kind == "attacks",
        settings={"lr": 0.01} if place.label else {},
        by_settings=settings_of(by),
        learner="plain",
        seconds=0.5,
        cost=Cost(2.0 if place.target == "retrained" else 1.0, 1000, 50),
        key=words.replace("/", "-"),
        scores=scores,
        measures=measures,
    )


def record(
    folder: Path,
    *,
    methods: tuple[str, ...] = ("finetune", "salun"),
    seeds: tuple[int, ...] = (0, 1),
    rounds: int = 1,
    examiners: tuple[Any, ...] = EXAMINERS,
    known: dict[str, float] | None = None,
    draw: int = 0,
    extra: tuple[Cell, ...] = (),
    **changes: Any,
) -> Record:
    """Writes a record with its scores into the folder. extra: further cells. changes: fields of the record."""
    board, shares = Board(), {**KNOWN, **(known or {})}
    for request in range(rounds):
        for seed in seeds:
            for by in examiners:
                places = [Place(name_of(by), "original", seed, "", request)]
                places += [Place(name_of(by), "retrained", seed, "", request, replica) for replica in range(2)]
                for label in methods:
                    places.append(Place(name_of(by), "unlearned", seed, label, request))
                    if by.bias_matched:
                        places.append(Place(name_of(by), "bias-matched", seed, label, request))
                for place in places:
                    add(board, by, place, shares[place.target], draw if place.target == "unlearned" else 0)
    comparisons = []
    for request in range(rounds):
        for label in methods:
            subject = judge.Subject(label, {"lr": 0.01}, request, True)
            for by in examiners:
                comparisons += judge.compare(board, subject, name_of(by), by.kind == "attacks", seeds)
    values: dict[str, Any] = {
        "command": "palimpsest audit --data digits --forget class=0",
        "started": "2026-01-02 03:04:05 UTC",
        "seconds": 12.0,
        "versions": {"python": "3.11", "torch": "2.13.0"},
        "hardware": {"cores": 2, "device": "cpu"},
        "data": {
            "name": "digits",
            "title": "digits",
            "kind": "image",
            "train": 100,
            "classes": ["zero", "one"],
            "fingerprint": "f00d",
        },
        "model": {"name": "convnet", "width": 4},
        "learner": {"name": "plain"},
        "recipe": {"name": "recipe", "epochs": 2},
        "requests": [
            Request(seed=seed, index=request, selection=f"class={request}", ids=ids("forget"), classes=[request])
            for request in range(rounds)
            for seed in seeds
        ],
        "seeds": list(seeds),
        "cells": [*board.cells, *extra],
        "comparisons": comparisons,
        "verdicts": [
            VerdictRow(unlearner=label, request=request, verdict=Finding.RESIDUAL, because=[f"{label} tells too much"])
            for request in range(rounds)
            for label in methods
        ],
        "warnings": [
            Warning(name="few-records", about="fewer than 30", message="12 records", meaning="wide intervals")
        ],
    }
    made = Record(**{**values, **changes})
    records.write(made, folder, board.scores)
    return made


def panel(label: str = "finetune", classes: tuple[str, ...] = ("zero", "one"), channels: int = 1) -> Panel:
    rng = np.random.default_rng(0)
    original = rng.uniform(0.2, 0.8, (2, channels, 8, 8)).astype(np.float32)
    attacked = (original + rng.choice([-0.125, 0.125], original.shape)).astype(np.float32)
    answers = np.array([0, 0]), np.array([1, 0]), np.array([0, 1])
    return Panel(label, "unlearned", 0, 32 / 255, classes, original, attacked, *answers)


def with_images(folder: Path, *panels: Panel) -> None:
    save(folder, panels or [panel()])


def failed(label: str, by: str, reason: str, status: Any = "failed", seed: int = 0) -> Cell:
    role = "verifier" if by == "relearn_time" else "attack"
    return Cell(unlearner=label, seed=seed, target="unlearned", status=status, reason=reason, **{role: by})


def without(record: Record, **fields: Any) -> Record:
    """The record with cells left out where all these fields are as given."""
    kept = [cell for cell in record.cells if any(getattr(cell, name) != value for name, value in fields.items())]
    return record.model_copy(update={"cells": kept})


def scores_of(scores: Scores, **arrays: Any) -> Scores:
    return replace(scores, arrays={**scores.arrays, **arrays})
