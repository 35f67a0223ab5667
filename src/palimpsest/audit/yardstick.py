"""The verifier without which no verdict is given on a task, and which of its measures say what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from palimpsest.errors import UnknownName
from palimpsest.language import Language
from palimpsest.reconstruction import Reconstruction
from palimpsest.task import Classification


@dataclass(frozen=True)
class Yardstick:
    """by: the verifier. forget, test: what a verdict goes by. known, unseen: the same share on forgotten and on held-out records,
    which a retrained control must not tell apart. matched: whether forgetting a class needs the bias-matched control to be read.
    attacks: what a model of the task is attacked with where nobody says."""

    by: str
    forget: str
    test: str
    known: str
    unseen: str
    matched: bool
    attacks: tuple[str, ...]


ACCURACY = Yardstick(
    by="accuracy",
    forget="forget_accuracy",
    test="test_accuracy",
    known="forget_accuracy",
    unseen="heldout_accuracy",
    matched=True,
    attacks=("uma", "confidence_membership"),
)
YARDSTICKS: Mapping[str, Yardstick] = {
    Classification.name: ACCURACY,
    Language.name: replace(ACCURACY, matched=False, attacks=("confidence_membership",)),
    Reconstruction.name: Yardstick(
        by="reconstruction",
        forget="forget_recovery_rate",
        test="test_quality",
        known="forget_quality",
        unseen="heldout_quality",
        matched=False,
        attacks=("uma_generation",),
    ),
}


def yardstick(task: str) -> Yardstick:
    """That of a task by its name. Raises UnknownName for one that no verdict is known for."""
    if task not in YARDSTICKS:
        raise UnknownName("the model's task (`solves`)", got=task, known=YARDSTICKS)
    return YARDSTICKS[task]
