"""The audit's cells as they come in, and the measures by what they were taken on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from palimpsest.measures.pooling import pooled
from palimpsest.record import SHARED, Cell, MeasureRow
from palimpsest.types import Array, Cost, Ids, Measure, Scores


@dataclass(frozen=True)
class Place:
    """What a cell is about. `by` is the attack's or the verifier's name. label: the method; of controls that methods share, their
    learner, empty for the audit's own."""

    by: str
    target: str
    seed: int
    label: str = ""
    request: int = 0
    replica: int = 0


@dataclass(frozen=True)
class Picture:
    """Attacked inputs of a cell, shape (n, channels, height, width), the ids of their records, and the radius."""

    place: Place
    ids: Ids
    attacked: Array
    epsilon: float
    before: Array
    after: Array


@dataclass(frozen=True)
class Drawing:
    """What the models of a cell drew of some records, shape (n, 4 + radii, channels, height, width): the record, what is seen
    of it, the original's and the subject's answer to it, and the subject's to its attacked selves. retained: how many of them, the
    last, were."""

    place: Place
    ids: Ids
    images: Array
    epsilon: tuple[float, ...]
    label: Array
    retained: int


@dataclass(frozen=True)
class Recovered:
    """What an attack made of records that it never saw, shape (n, channels, height, width), and the ids of the true ones.
    rank: of these among unseen records, by the distance to what was recovered, shape (n,)."""

    place: Place
    ids: Ids
    images: Array
    rank: Array


@dataclass
class Board:
    """Cells in the order in which they were made, their places, scores and measures, pictures of attacked images,
    drawings, and records as attacks recovered them."""

    cells: list[Cell] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    scores: dict[str, Scores] = field(default_factory=dict)
    measures: dict[Place, dict[Any, Measure]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    recoveries: list[Recovered] = field(default_factory=list)

    def add(
        self,
        place: Place,
        *,
        attack: bool,
        settings: Mapping[str, Any],
        by_settings: Mapping[str, Any],
        learner: str,
        defence: str | None = None,
        prepared: str | None = None,
        seconds: float,
        cost: Cost,
        key: str,
        scores: Scores,
        measures: Sequence[Measure],
    ) -> None:
        """A cell that completed."""
        self.scores[key] = scores
        self.places.append(place)
        self.measures[place] = {measure.key: measure for measure in measures}
        self.cells.append(
            Cell(
                **self._head(place, attack, settings, by_settings, learner, defence, prepared),
                seconds=seconds,
                cost=vars(cost),
                scores=key,
                measures=[MeasureRow.of(measure) for measure in measures],
            )
        )

    def fail(
        self,
        place: Place,
        reason: str,
        *,
        attack: bool,
        settings: Mapping[str, Any],
        by_settings: Mapping[str, Any],
        learner: str,
        defence: str | None = None,
        prepared: str | None = None,
        skipped: bool = False,
    ) -> None:
        """A cell that failed or was skipped: it stays in the record with its reason, and without measures."""
        head = self._head(place, attack, settings, by_settings, learner, defence, prepared)
        self.places.append(place)
        self.cells.append(Cell(**head, status="skipped" if skipped else "failed", reason=reason))

    def take(self, other: Board) -> None:
        """All that stands on another board too."""
        self.cells += other.cells
        self.places += other.places
        self.scores.update(other.scores)
        self.measures.update(other.measures)
        self.pictures += other.pictures
        self.drawings += other.drawings
        self.recoveries += other.recoveries

    @staticmethod
    def _head(
        place: Place,
        attack: bool,
        settings: Mapping[str, Any],
        by_settings: Mapping[str, Any],
        learner: str,
        defence: str | None,
        prepared: str | None,
    ) -> dict[str, Any]:
        return {
            "unlearner": "" if place.target in SHARED else place.label,
            "settings": dict(settings),
            "learner": learner,
            "request": place.request,
            "attack": place.by if attack else None,
            "verifier": None if attack else place.by,
            "attack_settings": dict(by_settings),
            "defence": defence,
            "prepared": prepared,
            "seed": place.seed,
            "target": place.target,
            "replica": place.replica,
        }

    def keys(self, by: str) -> list[Any]:
        """All measures (name and parameter) that this attack or verifier gave, in order."""
        found: dict[Any, None] = {}
        for place, measures in self.measures.items():
            if place.by == by:
                found.update(dict.fromkeys(measures))
        return list(found)

    def series(
        self, by: str, key: Any, target: str, seeds: Sequence[int], label: str = "", request: int = 0
    ) -> list[Measure] | None:
        """One measure per seed, replicas of a control averaged; None where a seed has none."""
        found = self.replicas(by, key, target, seeds, label, request)
        return [pooled(replicas) for replicas in found] if all(found) else None

    def replicas(
        self, by: str, key: Any, target: str, seeds: Sequence[int], label: str = "", request: int = 0
    ) -> list[list[Measure]]:
        """All replicas of a control, per seed."""
        found: dict[int, list[Measure]] = {seed: [] for seed in seeds}
        wanted = by, target, label, request
        for place, measures in self.measures.items():
            if (
                place.seed in found
                and (place.by, place.target, place.label, place.request) == wanted
                and key in measures
            ):
                found[place.seed].append(measures[key])
        return [found[seed] for seed in seeds]
