"""Separate requests: what the audit found of each is taken together, as if one request had been granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from palimpsest.attack.base import Attack
from palimpsest.audit.board import Board
from palimpsest.audit.examine import examiners
from palimpsest.audit.failures import FAILURES
from palimpsest.audit.plan import Plan
from palimpsest.catalog import name_of
from palimpsest.measures import pooling
from palimpsest.record import Cell, MeasureRow
from palimpsest.store import digest
from palimpsest.types import Measure, Scores
from palimpsest.verify.base import Verifier


def together(plan: Plan, boards: Sequence[Board]) -> Board:
    """One board out of those of one seed's separate requests: cells that stand at the same place become one.

    An attack that compares two models is measured anew on the scores of all requests, as each request is a deletion of its own. Of
    everything else the mean over requests is taken: the same retained and test records are judged in each. A cell that failed for
    one request has failed. Costs are means, seconds sums.
    """
    by = {name_of(examiner): examiner for examiner in examiners(plan)}
    found = Board()
    for place in dict.fromkeys(place for board in boards for place in board.places):
        where = [(board, board.places.index(place)) for board in boards if place in board.places]
        cells = [board.cells[row] for board, row in where]
        lost = next((cell for cell in cells if cell.status != "ok"), None)
        found.places.append(place)
        if lost is not None:
            found.cells.append(lost)
            continue
        try:
            every = [board.scores[str(cell.scores)] for (board, _), cell in zip(where, cells, strict=True)]
            scores, measures = _taken(by[place.by], every, [board.measures[place] for board, _ in where])
        except FAILURES as error:  # this cell's alone, as where an attack fails
            gone: dict[str, Any] = {"status": "failed", "reason": str(error), "scores": None, "measures": []}
            found.cells.append(cells[0].model_copy(update=gone))
            continue
        key = digest([cell.scores for cell in cells])
        found.scores[key] = scores
        found.measures[place] = {measure.key: measure for measure in measures}
        rows = [MeasureRow.of(measure) for measure in measures]
        told = {"scores": key, "measures": rows, "cost": _mean(cells), "seconds": sum(cell.seconds for cell in cells)}
        found.cells.append(cells[0].model_copy(update=told))
    for board in boards:
        found.take(replace(board, cells=[], places=[], scores={}, measures={}))  # the pictures
    return found


def _taken(
    by: Attack | Verifier, every: Sequence[Scores], each: Sequence[Mapping[Any, Measure]]
) -> tuple[Scores, tuple[Measure, ...]]:
    if isinstance(by, Attack) and by.compares:
        scores = Scores.joined(every)
        return scores, by.measure(scores)
    return pooling.of_requests(every), pooling.together(each)


def _mean(cells: Sequence[Cell]) -> dict[str, float]:
    names = dict.fromkeys(name for cell in cells for name in cell.cost)
    return {name: float(np.mean([cell.cost.get(name, 0.0) for cell in cells])) for name in names}
