"""What attacks share that hand in poisoned records: who the adversary is, and what of its records is still there."""

from __future__ import annotations

from dataclasses import dataclass

from palimpsest.attack.base import Attack
from palimpsest.case import Case
from palimpsest.errors import BadInput
from palimpsest.threat import Submission, ThreatModel
from palimpsest.types import Examples

CONTRIBUTOR = ThreatModel(
    roles=("R1",),
    goals=("G2",),
    knowledge="K3",
    phases=("P1",),
    sees="labels",
    models="after",
    knows=(),
)
"""Somebody who contributes records to the training set and later asks for them to be forgotten; it sees no weights."""


@dataclass(frozen=True)
class Poison(Attack, partial=True):
    """Base of attacks that hand in records before training. The adversary's own records are those that the audit's requests name:
    it alters them, the model is trained on them, and the requests ask for exactly them to be forgotten. What it does to them is
    `prepare`; `score` says what is left of it in a model."""

    def submitted(self, case: Case) -> Submission:
        """What was handed in. Raises BadInput where nothing was."""
        if not isinstance(case.submission, Submission):
            raise BadInput(type(self).__name__, got="a case without a submission", expected="one that was prepared for")
        return case.submission


def own_of(case: Case) -> Examples:
    """The poisoned records that were asked to be forgotten so far, as they were trained on."""
    return case.split.train.only(case.forgotten)
