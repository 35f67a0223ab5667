"""Accuracy on what was kept, on what was forgotten, and on test records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from palimpsest.case import Case
from palimpsest.measures.intervals import share
from palimpsest.task import predict
from palimpsest.types import Array, Examples, Measure, Scores
from palimpsest.verify.base import Verifier

GROUPS = ("retain", "forget", "test", "heldout")


@dataclass(frozen=True)
class Accuracy(Verifier):
    """Share of records whose class is predicted, per group of records.

    `test_accuracy` leaves out classes that were forgotten whole (as the UMA paper's TA does); `heldout_accuracy` is on
    test records of the forget set's classes. A low forget accuracy is no proof of forgetting: one bias of the last
    layer can make it.
    """

    about = "accuracy on retain, forget and test records"
    bias_matched = True

    def verify(self, case: Case) -> Scores:
        """Scores per record: `group` (0 retain, 1 forget, 2 test, 3 held out), `correct`, `confidence` in the true class."""

        def columns(part: Examples) -> dict[str, Array]:
            posterior, targets = predict(case.task, case.subject.model, part), part.targets.cpu()
            return {
                "correct": (posterior.argmax(1) == targets).numpy(),
                "confidence": posterior.gather(1, targets[:, None]).flatten().numpy(),
            }

        return by_group(case, columns)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        group, correct = scores["group"], scores["correct"]
        found = [
            share(f"{name}_accuracy", correct[group == index], stream=name)
            for index, name in enumerate(GROUPS)
            if (group == index).any()
        ]
        return (*found, share("train_accuracy", correct[group <= 1], stream="train"))


def by_group(case: Case, columns: Callable[[Examples], dict[str, Array]]) -> Scores:
    """Scores of the case's groups of records, one below the other, with the column `group` (a place in `GROUPS`)."""
    parts = [(index, part) for index, part in enumerate((case.retain, case.forget, case.test, case.heldout)) if len(part)]
    scored = [columns(part) for _, part in parts]
    arrays = {name: np.concatenate([column[name] for column in scored]) for name in scored[0]}
    arrays["group"] = np.repeat([index for index, _ in parts], [len(part) for _, part in parts])
    return Scores("record", np.concatenate([part.ids for _, part in parts]), arrays)
