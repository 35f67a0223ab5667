"""Every model of a stage takes the subject's seat in turn; each attack and verifier gives a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from palimpsest.attack.base import Attack
from palimpsest.audit.board import Board, Drawing, Picture, Place
from palimpsest.audit.controls import bias_matched
from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import FAILURES, Stage, labels
from palimpsest.audit.workshop import Made, Scored, Workshop
from palimpsest.case import Case, halves, held_out
from palimpsest.catalog import name_of, settings_of
from palimpsest.errors import StoreError
from palimpsest.store import digest
from palimpsest.types import Array, Examples, Scores
from palimpsest.verify.base import Verifier


@dataclass(frozen=True)
class Seat:
    """A model in the subject's place. about: what else its case is made of, by key, for the scores' own key."""

    target: str
    made: Made
    case: Callable[[], Case]
    about: Mapping[str, Any]
    label: str
    replica: int = 0


def seats(stage: Stage) -> Iterator[Seat]:
    """The shared controls first, then each method followed by the control that is matched to it."""

    shared = stage.home.name

    def seat(target: str, made: Made, others: tuple[Made, ...], label: str = shared, replica: int = 0) -> Seat:
        about = {"controls": [other.key for other in others], **_seen(stage, made)}
        return Seat(target, made, lambda: stage.case(made, target, others), about, label, replica)

    if stage.home.release is not None and stage.served is None:  # it could not be made
        return
    yield seat("original", stage.served or stage.original, stage.controls)
    for replica, control in enumerate(stage.controls):
        yield seat("retrained", control, tuple(c for c in stage.controls if c is not control), replica=replica)
    if stage.untrained is not None:
        yield seat("untrained", stage.untrained, ())
    for label, made in stage.unlearned.items():
        if isinstance(made, Exception):
            continue
        yield seat("unlearned", made, stage.controls, label)
        if stage.controls and stage.forgotten_classes:
            yield from (_matched(stage, label, made, replica) for replica in range(len(stage.controls)))
        if not stage.controls and _both_halves(held_out(stage.split, stage.forgotten)):
            yield _placebo(stage, label, made)


def _matched(stage: Stage, label: str, made: Made, replica: int) -> Seat:
    """A retrained control with its forgotten classes' biases shifted to this method's logit gap."""
    retrained = stage.controls[replica]
    shifted = _shifted(stage, retrained, made)
    if stage.behind:
        plain = _shifted(stage, stage.behind[retrained.key], stage.behind[made.key])
        stage = replace(stage, behind={shifted.key: plain})

    def case() -> Case:
        return stage.case(shifted, "bias-matched", stage.controls)

    return Seat("bias-matched", shifted, case, {"controls": [], **_seen(stage, shifted)}, label, replica)


def _seen(stage: Stage, made: Made) -> dict[str, Any]:
    """The key of the model that an attacker is shown in its place, where that is another."""
    return {"seen": stage.behind[made.key].key} if made.key in stage.behind else {}


def _shifted(stage: Stage, retrained: Made, subject: Made) -> Made:
    key = digest({"bias-matched": retrained.key, "to": subject.key, "requests": _requests(stage)})

    def build() -> Any:
        return bias_matched(stage.case(subject, "unlearned"), retrained.trained)

    return Made(key, build, retrained.ids, np.union1d(retrained.holds, subject.holds))


def _placebo(stage: Stage, label: str, made: Made) -> Seat:
    """The method's own model, asked for records of the same classes that no model was trained on: one half of those in the forget
    set's place, the other in their own."""

    def case() -> Case:
        situation = stage.case(made, "placebo", ())
        unseen = situation.heldout
        first = halves(unseen, "placebo")
        other = {**situation.extra, "forget": unseen.take(first), "heldout": unseen.take(~first)}
        return replace(situation, extra=other, answers=WeakKeyDictionary())

    return Seat("placebo", made, case, {"controls": [], "placebo": True}, label)


def _both_halves(unseen: Examples) -> bool:
    return len(set(halves(unseen, "placebo").tolist())) == 2


def _requests(stage: Stage) -> list[str]:
    return [digest(sorted(request.ids.tolist())) for request in stage.requests]


def skip(plan: Plan, seed: int, board: Board) -> None:
    """A row for each method that cannot be run on this case, with the reason."""
    every = labels(plan)
    for (label, reason), index, by in product(plan.skipped.items(), range(len(plan.forget)), examiners(plan)):
        board.fail(
            Place(name_of(by), "unlearned", seed, label, index),
            reason,
            attack=isinstance(by, Attack),
            settings=settings_of(every[label]),
            by_settings=settings_of(by),
            learner=every[label].needs or name_of(plan.learner),
            skipped=True,
        )


def examine(plan: Plan, stage: Stage, shop: Workshop, board: Board) -> None:
    """Puts the cells of one stage on the board."""
    for label, made in stage.unlearned.items():
        if isinstance(made, Exception):
            for by in examiners(plan):
                place = Place(name_of(by), "unlearned", stage.seed, label, stage.index)
                board.fail(place, f"unlearning failed: {made}", **_head(stage, by, label))
    for seat in seats(stage):
        examine_seat(plan, stage, seat, shop, board)


def examine_seat(plan: Plan, stage: Stage, seat: Seat, shop: Workshop, board: Board) -> None:
    """Puts the cells of one model on the board."""
    for by in examiners(plan):
        if _applies(by, seat) and (not stage.home.unknown or _tells(by, plan)):
            _cell(plan, stage, seat, by, shop, board)


def examiners(plan: Plan) -> list[Attack | Verifier]:
    """Attacks, then verifiers."""
    return [*plan.attacks, *plan.verifiers]


def _applies(by: Attack | Verifier, seat: Seat) -> bool:
    if seat.target == "bias-matched":
        return by.bias_matched
    if seat.target == "untrained":
        return isinstance(by, Attack) and by.untrained
    if seat.target == "placebo":
        return isinstance(by, Attack) and by.bias_matched
    return True


def _tells(by: Attack | Verifier, plan: Plan) -> bool:
    """Whether it is another attack by one who does not know of a release; and the verifier that no verdict is without."""
    return by.threat.sees == "weights" if isinstance(by, Attack) else name_of(by) == plan.yardstick.by


def _cell(plan: Plan, stage: Stage, seat: Seat, by: Attack | Verifier, shop: Workshop, board: Board) -> None:
    place = Place(name_of(by), seat.target, stage.seed, seat.label, stage.index, seat.replica)
    head = _head(stage, by, seat.label)
    if isinstance(by, Verifier) and by.needs_control and not seat.about["controls"]:
        board.fail(place, "no other retrained control to compare with", **head, skipped=True)
        return
    about = {
        "original": stage.original.key,
        "requests": _requests(stage),
        "seed": stage.seed,
        "target": "placebo" if seat.target == "placebo" else "",
        "controls": seat.about["controls"] if isinstance(by, Verifier) and by.needs_control else [],
    }
    if isinstance(by, Attack) and "seen" in seat.about:
        about["seen"] = seat.about["seen"]
    holds = [*seat.made.holds.tolist(), *stage.original.holds.tolist()]
    pictured = stage.split.kind == "image" and stage.seed == plan.seeds[0]
    try:
        scored: Scored = (
            shop.attack(by, seat.made, seat.case, about, holds, pictured=pictured)
            if isinstance(by, Attack)
            else shop.verify(by, seat.made, seat.case, about, holds)
        )
        measures = by.measure(scored.scores)
    except StoreError:  # a full disk is no fault of the attack
        raise
    except FAILURES as error:
        board.fail(place, f"{type(error).__name__}: {error}", **head)
        return
    board.add(
        place,
        **head,
        seconds=scored.seconds,
        cost=seat.made.cost,
        key=scored.key,
        scores=scored.scores,
        measures=measures,
    )
    told = {"clean_prediction", "attacked_prediction"} <= scored.scores.arrays.keys()
    if pictured and told and "epsilon" in scored.scores.axes and scored.shown is not None and scored.shown.dim() == 4:
        board.pictures.append(_picture(place, scored.scores, scored.shown.numpy()))
    if pictured and scored.shown is not None and scored.shown.dim() == 5:
        n, scores = len(scored.shown), scored.scores
        board.drawings.append(
            Drawing(place, scores.ids[:n], scored.shown.numpy(), scores.axes["epsilon"], scores["label"][:n])
        )


def _picture(place: Place, scores: Scores, attacked: Array) -> Picture:
    """The attacked images with what the model answers before and after, for the largest radius."""
    widest, n = int(np.argmax(scores.axes["epsilon"])), len(attacked)
    before, after = scores["clean_prediction"][:n], scores["attacked_prediction"][:n, widest]
    return Picture(place, scores.ids[:n], attacked, scores.axes["epsilon"][widest], before, after)


def _head(stage: Stage, by: Attack | Verifier, label: str) -> dict[str, Any]:
    return {
        "attack": isinstance(by, Attack),
        "settings": stage.settings.get(label, {}),
        "by_settings": settings_of(by),
        "learner": stage.home.told,
        "defence": stage.defence(label),
    }
