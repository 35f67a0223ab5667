"""Which attacks the report shows pictures of: those that tell what the model answered before and after, and at which radius."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from palimpsest.attack.base import Guess
from palimpsest.attack.residual.uma import Uma
from palimpsest.audit.board import Board
from palimpsest.audit.examine import examine
from palimpsest.audit.stage import homes, stages
from palimpsest.audit.workshop import ATTACKED, Workshop
from palimpsest.case import Case
from palimpsest.catalog import name_of
from palimpsest.measures.intervals import mean
from palimpsest.models.linear import Linear
from palimpsest.rng import determinism
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.types import Measure, Scores
from palimpsest.unlearn.retrain import Retrain
from tests.audit.small import plan


class Untold(Uma):
    """Leaves attacked inputs behind as UMA does, and scores that lack one thing that a picture needs."""

    lacks: ClassVar[str]

    def score(self, guess: Guess, case: Case) -> Scores:
        def told(values: Any) -> dict[str, Any]:
            return {name: value for name, value in values.items() if name != self.lacks}

        scores = super().score(guess, case)
        return replace(scores, arrays=told(scores.arrays), axes=told(scores.axes))

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        return (mean("untold.distance", scores["clean_distance"]),)


@dataclass(frozen=True)
class NoAnswersBefore(Untold):
    lacks = "clean_prediction"


@dataclass(frozen=True)
class NoAnswersAfter(Untold):
    lacks = "attacked_prediction"


@dataclass(frozen=True)
class NoRadii(Untold):
    lacks = "epsilon"


def test_an_attack_that_does_not_tell_has_no_pictures_and_is_no_error(tmp_path: Path) -> None:
    attacks = tuple(kind(epsilon=(8 / 255,), steps=1) for kind in (Uma, NoAnswersBefore, NoAnswersAfter, NoRadii))
    asked = plan(model=Linear(), unlearners=(Retrain(),), attacks=attacks, verifiers=(), controls=1)
    split, board = asked.data.load(), Board()
    shop = Workshop(Store(tmp_path), Classification.of(split), split.fingerprint)
    with determinism(1):
        for stage in stages(asked, homes(asked)[0], split, shop, 0):
            examine(asked, stage, shop, board)
    assert all(cell.status == "ok" for cell in board.cells), [cell.reason for cell in board.cells]
    cells = [cell.attack for cell in board.cells]
    assert all(cells.count(name_of(attack)) == cells.count("uma") > 2 for attack in attacks)
    for entry in shop.store.entries():
        if entry.kind == "scores":
            kept = shop.store.read(entry.kind, entry.key)
            assert kept is not None
            assert ATTACKED in kept.tensors
    assert [picture.place.by for picture in board.pictures] == ["uma"] * cells.count("uma")
