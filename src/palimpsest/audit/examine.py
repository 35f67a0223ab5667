"""Every model of a stage takes the subject's seat in turn; each attack and verifier gives a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from palimpsest.attack.base import Attack
from palimpsest.audit.board import Board, Drawing, Picture, Place, Recovered
from palimpsest.audit.controls import Matching, bias_matched, half, known_leak, placebo, stand_ins
from palimpsest.audit.failures import FAILURES
from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import Stage, labels
from palimpsest.audit.workshop import Made, Scored, Workshop
from palimpsest.case import Case, halves, held_out
from palimpsest.catalog import name_of, settings_of
from palimpsest.defend.base import OutputRelease
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


def seats(plan: Plan, stage: Stage) -> Iterator[Seat]:
    """The shared controls first, then each method followed by the controls that are matched to it."""
    compared = any(attack.compares for attack in plan.attacks)
    shared = stage.home.name

    def seat(target: str, made: Made, others: tuple[Made, ...], label: str = shared, replica: int = 0) -> Seat:
        about = {"controls": [other.key for other in others], **_seen(stage, made)}
        return Seat(target, made, lambda: stage.case(made, target, others), about, label, replica)

    if stage.home.release is not None and stage.served is None:  # it could not be made
        return
    yield seat("original", stage.served or stage.original, stage.controls)
    for replica, control in enumerate(stage.controls):
        yield seat("retrained", control, tuple(c for c in stage.controls if c is not control), replica=replica)
    if stage.clean is not None and stage.home.release is None:
        yield seat("clean", stage.clean, ())
    if stage.untrained is not None:
        yield seat("untrained", stage.untrained, ())
    if compared and stage.home.release is None:
        yield seat("known-leak", _leaking(stage), ())
    for label, made in stage.unlearned.items():
        if isinstance(made, Exception):
            continue
        yield seat("unlearned", made, stage.controls, label)
        if stage.controls and stage.forgotten_classes and plan.yardstick.matched:
            yield from (_matched(plan, stage, label, made, replica) for replica in range(len(stage.controls)))
        if not stage.controls and _both_halves(held_out(stage.split, stage.forgotten)):
            yield _placebo(stage, label, made, half)
        if compared:
            yield _placebo(stage, label, made, stand_ins)


def _matched(plan: Plan, stage: Stage, label: str, made: Made, replica: int) -> Seat:
    """A retrained control with its forgotten classes' biases shifted to this method's."""
    retrained, on = stage.controls[replica], plan.policy.matching
    shifted = _shifted(stage, retrained, made, on)
    if stage.behind:
        plain = _shifted(stage, stage.behind[retrained.key], stage.behind[made.key], on)
        stage = replace(stage, behind={shifted.key: plain})

    def case() -> Case:
        return stage.case(shifted, "bias-matched", stage.controls)

    return Seat("bias-matched", shifted, case, {"controls": [], **_seen(stage, shifted)}, label, replica)


def _seen(stage: Stage, made: Made) -> dict[str, Any]:
    """The keys of the models that an attacker is shown in its place and in the original's, where those are others."""
    told = {"seen": stage.behind[made.key].key} if made.key in stage.behind else {}
    if stage.served is not None and isinstance(stage.home.release, OutputRelease):
        told["before"] = stage.served.key
    return told


def _shifted(stage: Stage, retrained: Made, subject: Made, on: Matching) -> Made:
    told = {} if on == "gap" else {"on": on}
    key = digest({"bias-matched": retrained.key, "to": subject.key, "requests": _requests(stage), **told})

    def build() -> Any:
        return bias_matched(stage.case(subject, "unlearned"), retrained.trained, on)

    return Made(key, build, retrained.ids, np.union1d(retrained.holds, subject.holds))


def _leaking(stage: Stage) -> Made:
    """The original after one step that says all of the forgotten records."""
    key = digest({"known-leak": stage.original.key, "requests": _requests(stage)})

    def build() -> Any:
        return known_leak(stage.case(stage.original, "known-leak", ()))

    return Made(key, build, stage.original.ids, stage.original.holds)


def _placebo(stage: Stage, label: str, made: Made, stand: Callable[[Case], Array]) -> Seat:
    """The method's own model, asked for records that no model was trained on."""

    def case() -> Case:
        return placebo(stage.case(made, "placebo", ()), stand)

    return Seat("placebo", made, case, {"controls": [], "placebo": stand.__name__}, label)


def _both_halves(unseen: Examples) -> bool:
    return len(set(halves(unseen, "placebo").tolist())) == 2


def _requests(stage: Stage) -> list[str]:
    return [digest(sorted(request.ids.tolist())) for request in stage.requests]


def _places(plan: Plan) -> range:
    """The requests that have a row: separate ones are taken together."""
    return range(1 if plan.separate else len(plan.forget))


def skip(plan: Plan, seed: int, board: Board) -> None:
    """A row for each method that cannot be run on this case, with the reason."""
    every = labels(plan)
    for (label, reason), index, by in product(plan.skipped.items(), _places(plan), examiners(plan)):
        board.fail(
            Place(name_of(by), "unlearned", seed, label, index),
            reason,
            attack=isinstance(by, Attack),
            settings=settings_of(every[label]),
            by_settings=settings_of(by),
            learner=every[label].needs or name_of(plan.learner),
            prepared=None if plan.poisoner is None else name_of(plan.poisoner),
            skipped=True,
        )


def examine(plan: Plan, stage: Stage, shop: Workshop, board: Board) -> None:
    """Puts the cells of one stage on the board."""
    for label, made in stage.unlearned.items():
        if isinstance(made, Exception):
            for by in examiners(plan):
                place = Place(name_of(by), "unlearned", stage.seed, label, stage.index)
                board.fail(place, f"unlearning failed: {made}", **_head(plan, stage, by, label))
    for seat in seats(plan, stage):
        examine_seat(plan, stage, seat, shop, board)


def examine_seat(plan: Plan, stage: Stage, seat: Seat, shop: Workshop, board: Board) -> None:
    """Puts the cells of one model on the board."""
    for by in examiners(plan):
        if _applies(by, seat) and _shown(by, stage) and (not stage.home.unknown or _tells(by, plan)):
            _cell(plan, stage, seat, by, shop, board)


def examiners(plan: Plan) -> list[Attack | Verifier]:
    """Attacks, then verifiers."""
    return [*plan.attacks, *plan.verifiers]


COMPARED = ("unlearned", "placebo", "known-leak")
"""Whose seats an attack takes that compares two models: before and after."""


def _applies(by: Attack | Verifier, seat: Seat) -> bool:
    compares = isinstance(by, Attack) and by.compares
    if isinstance(by, Attack) and seat.target == "known-leak" and not by.reads_steps:
        return False
    if compares or seat.target == "known-leak":
        other = seat.target not in COMPARED or seat.about.get("placebo") == half.__name__
        return compares and not other
    if seat.target == "clean":
        return by.prepares if isinstance(by, Attack) else not by.needs_control
    if seat.target == "bias-matched":
        return by.bias_matched
    if seat.target == "untrained":
        return isinstance(by, Attack) and by.untrained
    if seat.target == "placebo":
        return isinstance(by, Attack) and by.bias_matched and seat.about["placebo"] == half.__name__
    return True


def _shown(by: Attack | Verifier, stage: Stage) -> bool:
    """Not to an attacker who holds the weights, who need not ask a service that answers with less."""
    service = isinstance(stage.home.release, OutputRelease)
    return not (service and isinstance(by, Attack) and by.threat.sees == "weights")


def _tells(by: Attack | Verifier, plan: Plan) -> bool:
    """Whether it is another attack by one who does not know of a release; and the verifier that no verdict is without."""
    if isinstance(by, Attack) and by.compares:
        return False
    return by.threat.sees == "weights" if isinstance(by, Attack) else name_of(by) == plan.yardstick.by


def _cell(plan: Plan, stage: Stage, seat: Seat, by: Attack | Verifier, shop: Workshop, board: Board) -> None:
    place = Place(name_of(by), seat.target, stage.seed, seat.label, stage.index, seat.replica)
    head = _head(plan, stage, by, seat.label)
    if isinstance(by, Verifier) and by.needs_control and not seat.about["controls"]:
        board.fail(place, "no other retrained control to compare with", **head, skipped=True)
        return
    about = {
        "original": stage.original.key,
        "requests": _requests(stage),
        "seed": stage.seed,
        "target": f"placebo {seat.about['placebo']}" if seat.target == "placebo" else "",
        "controls": seat.about["controls"] if isinstance(by, Verifier) and by.needs_control else [],
    }
    if isinstance(by, Attack):
        about |= {name: seat.about[name] for name in ("seen", "before") if name in seat.about}
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
    if pictured and isinstance(by, Attack) and by.compares and scored.shown is not None and scored.shown.dim() == 4:
        scores = scored.scores
        board.recoveries.append(Recovered(place, scores.ids, scored.shown.numpy()[scores["order"]], scores["rank"]))
        return
    told = {"clean_prediction", "attacked_prediction"} <= scored.scores.arrays.keys()
    if pictured and told and "epsilon" in scored.scores.axes and scored.shown is not None and scored.shown.dim() == 4:
        board.pictures.append(_picture(place, scored.scores, scored.shown.numpy()))
    if pictured and scored.shown is not None and scored.shown.dim() == 5:
        scores, mine = scored.scores, scored.scores["pictured"] == 1
        retained, label = int(scores["group"][mine].sum()), scores["label"][mine]
        board.drawings.append(
            Drawing(place, scores.ids[mine], scored.shown.numpy(), scores.axes["epsilon"], label, retained)
        )


def _picture(place: Place, scores: Scores, attacked: Array) -> Picture:
    """The attacked images with what the model answers before and after, for the largest radius."""
    widest, n = int(np.argmax(scores.axes["epsilon"])), len(attacked)
    before, after = scores["clean_prediction"][:n], scores["attacked_prediction"][:n, widest]
    return Picture(place, scores.ids[:n], attacked, scores.axes["epsilon"][widest], before, after)


def _head(plan: Plan, stage: Stage, by: Attack | Verifier, label: str) -> dict[str, Any]:
    return {
        "attack": isinstance(by, Attack),
        "settings": stage.settings.get(label, {}),
        "by_settings": settings_of(by),
        "learner": stage.home.told,
        "prepared": None if plan.poisoner is None else name_of(plan.poisoner),
        "defence": stage.defence(label),
    }
