"""What of an audit can be made apart, by workers, before the audit itself finds it all in the store.

Nothing is counted here: the audit's own pass reads models and scores from the store as after an earlier run, so its record is the
same with any number of workers, and a worker that died leaves no hole in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from palimpsest.audit.board import Board
from palimpsest.audit.crew import Bench, Crew
from palimpsest.audit.examine import examine_seat, seats
from palimpsest.audit.imported import imported_stage
from palimpsest.audit.plan import Plan
from palimpsest.audit.prepared import prepared
from palimpsest.audit.released import every_stage
from palimpsest.audit.stage import Stage, fits, home_of, homes
from palimpsest.audit.workshop import Workshop
from palimpsest.types import Split
from palimpsest.workers import Workers


@dataclass(frozen=True)
class Round:
    """The stages of one seed and home, with those of the home's methods that are named."""

    seed: int
    home: str
    labels: tuple[str, ...]

    def stages(self, plan: Plan, split: Split, shop: Workshop) -> Iterator[Stage]:
        if plan.imported:
            return iter([imported_stage(plan, plan.imported, split, shop, self.seed)])
        home = home_of(plan, self.home)
        return every_stage(
            plan, replace(home, methods={label: home.methods[label] for label in self.labels}), split, shop, self.seed
        )


def make_apart(plan: Plan, here: Bench, workers: Workers) -> None:
    """Makes the models and scores of an audit that are not yet in its store, by workers.

    A method, an attack or a verifier that fails here fails in the audit's own pass again, which records it. Raises what training
    raises, and errors of the store.
    """
    crew = Crew(plan, here, workers)
    rounds = [Round(seed, home.name, tuple(home.methods)) for seed in plan.seeds for home in homes(plan)]
    if plan.imported:
        rounds = [Round(seed, "", ()) for seed in plan.seeds]
    else:
        if plan.poisoner is not None:
            crew.spread(submit, rounds, "records to hand in")
        every = range(1 + len(plan.forget) * plan.controls + (plan.poisoner is not None))
        crew.spread(fit, [(turn, place) for turn in rounds for place in every], "originals and controls")
        chains = [replace(turn, labels=(label,)) for turn in rounds for label in turn.labels]
        went_well = dict(zip(chains, crew.spread(chain, chains, "unlearning"), strict=True))
        rounds = [
            replace(turn, labels=tuple(label for label in turn.labels if went_well[replace(turn, labels=(label,))]))
            for turn in rounds
        ]
    chairs = [
        (turn, at, place)
        for turn in rounds
        for at, stage in enumerate(_walked(plan, here, turn))
        for place, _ in enumerate(seats(plan, stage))
    ]
    crew.spread(examine, chairs, "attacks and verifiers")


def submit(plan: Plan, place: Bench, turn: Round) -> None:
    """What an adversary hands in before the training of one seed and home."""
    home = home_of(plan, turn.home)
    prepared(plan, home.learner, home.recipe, place.split, place.shop, turn.seed)


def fit(plan: Plan, place: Bench, piece: tuple[Round, int]) -> None:
    """Trains one original or control, by its place in `fits`."""
    turn, number = piece
    home = home_of(plan, turn.home)
    ready = prepared(plan, home.learner, home.recipe, place.split, place.shop, turn.seed)
    examples, rng = fits(plan, ready, place.shop.task, turn.seed)[number]
    ready.shop.fit(home.learner, home.recipe, plan.model, examples, rng)


def chain(plan: Plan, place: Bench, turn: Round) -> bool:
    """All requests to one method, in order; whether it granted them."""
    last = list(turn.stages(plan, place.split, place.shop))[-1]
    return not any(isinstance(made, Exception) for made in last.unlearned.values())


def examine(plan: Plan, place: Bench, piece: tuple[Round, int, int]) -> None:
    """All attacks and verifiers on one model, by the place of its stage in the round and its own in `seats`."""
    turn, at, number = piece
    stage = _walked(plan, place, turn)[at]
    examine_seat(plan, stage, list(seats(plan, stage))[number], place.shop, Board())


def _walked(plan: Plan, place: Bench, turn: Round) -> list[Stage]:
    return place.once(turn, lambda: list(turn.stages(plan, place.split, place.shop)))
