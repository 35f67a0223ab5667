"""What the difference between two models gives away of what was deleted between them."""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest.attack.base import Attack
from palimpsest.audit.board import Board
from palimpsest.audit.judge import Subject
from palimpsest.audit.policy import Policy
from palimpsest.catalog import name_of
from palimpsest.measures.intervals import average, difference
from palimpsest.record import LeakRow, MeasureRow
from palimpsest.types import Leak, Measure


def leak(policy: Policy, board: Board, subject: Subject, attack: Attack, seeds: Sequence[int]) -> LeakRow:
    """Whether an attack that compares the original with this method's model learns of the deleted records.

    It goes by the attack's primary measure minus that of the placebo, the same guess judged on records that neither model was
    trained on; a leak must also be better than guessing by itself. Where the attack does not even read the known leak (one plain
    step on the records), its silence says nothing. That it finds nothing is no proof that nothing is to be found.
    """
    by, key = name_of(attack), (attack.primary, ())
    own = board.series(by, key, "unlearned", seeds, subject.label, subject.request)
    placebo = board.series(by, key, "placebo", seeds, subject.label, subject.request)
    known = board.series(by, key, "known-leak", seeds, _home(board, subject), subject.request)
    over = difference(own[0].name, own, placebo) if own and placebo else None
    reads = difference(own[0].name, known, placebo) if own and known and placebo else None
    state, because = _judged(policy, over, reads)
    if state is Leak.LEAKED and own and attack.chance is not None and average(own[0].name, own).low <= attack.chance:
        state, because = Leak.INCONCLUSIVE, [*because, f"but by itself no better than guessing ({attack.chance:g})"]
    if own is None or placebo is None:
        because = [*_failures(board, subject, by), *because]
    return LeakRow(
        unlearner=subject.label,
        settings=dict(subject.settings),
        request=subject.request,
        defence=subject.defence,
        attack=by,
        state=state,
        value=average(own[0].name, own).value if own else None,
        minus_placebo=MeasureRow.of(over) if over else None,
        known_leak=MeasureRow.of(reads) if reads else None,
        because=because,
    )


def _judged(policy: Policy, over: Measure | None, reads: Measure | None) -> tuple[Leak, list[str]]:
    if over is None:
        return Leak.INCONCLUSIVE, ["the attack gave no number, or its placebo did not"]
    told = f"{over.value:+.2f} [{over.low:+.2f}, {over.high:+.2f}] over the placebo"
    if over.low > policy.margin:
        return Leak.LEAKED, [told]
    if reads is None or reads.low <= 2 * policy.margin:
        shown = "was not tried" if reads is None else f"gives {reads.value:+.2f} [{reads.low:+.2f}, {reads.high:+.2f}]"
        return Leak.INCONCLUSIVE, [f"{told}, but the attack cannot read even the known leak, which {shown}"]
    if over.high < 2 * policy.margin:
        return Leak.NOT_LEAKED, [told]
    return Leak.INCONCLUSIVE, [f"{told}, too uncertain to call"]


def _home(board: Board, subject: Subject) -> str:
    """Under which label the known leak stands: the method's learner or, for a released model, the audit's own."""
    labels = {place.label for place in board.measures if place.target == "known-leak"}
    return subject.home if subject.home in labels else min(labels, default="")


def _failures(board: Board, subject: Subject, by: str) -> list[str]:
    return [
        f"{cell.target}, seed {cell.seed}: {cell.reason}"
        for cell in board.cells
        if cell.status == "failed"
        and (cell.attack, cell.unlearner, cell.request) == (by, subject.label, subject.request)
    ]
