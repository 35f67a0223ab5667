"""Accuracy on what was kept, on what was forgotten, and on test records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from palimpsest.case import GROUPS, Case
from palimpsest.catalog import setting
from palimpsest.data.base import hashes
from palimpsest.language import Language
from palimpsest.measures.intervals import share
from palimpsest.task import Classification, predict
from palimpsest.types import Array, Examples, Measure, Scores
from palimpsest.verify.base import Verifier


@dataclass(frozen=True)
class Accuracy(Verifier):
    """Share of records whose class is predicted, per group of records.

    `test_accuracy` leaves out classes that were forgotten whole, for every model (in the UMA paper's TA the original seems to
    keep them); `heldout_accuracy` is on test records of the forget set's classes. A low forget accuracy is no proof of
    forgetting: one bias of the last layer can make it.
    """

    about = "accuracy on retain, forget and test records"
    tasks = (Classification.name, Language.name)
    bias_matched = True

    records: int | None = setting(None, "at most this many records of each group; none: all", source="ours", least=1)

    def verify(self, case: Case) -> Scores:
        """Scores per record: `group` (0 retain, 1 forget, 2 test, 3 held out), `correct`, `confidence` in the true class."""

        def columns(group: str, part: Examples) -> dict[str, Array]:
            whole = len(part) == len(case.group(group))
            posterior = case.posterior(case.subject, group) if whole else predict(case.task, case.subject.model, part)
            targets = part.targets.cpu()
            return {
                "correct": (posterior.argmax(1) == targets).numpy(),
                "confidence": posterior.gather(1, targets[:, None]).flatten().numpy(),
            }

        return by_group(case, columns, self.records)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        group, correct = scores["group"], scores["correct"]
        found = [
            share(f"{name}_accuracy", correct[group == index], stream=name)
            for index, name in enumerate(GROUPS)
            if (group == index).any()
        ]
        return (*found, share("train_accuracy", correct[group <= 1], stream="train"))


def by_group(case: Case, columns: Callable[[str, Examples], dict[str, Array]], most: int | None = None) -> Scores:
    """Scores of the case's groups of records, one below the other, with the column `group` (a place in `GROUPS`).

    most: records of a group, drawn by their ids; none: all."""
    groups = [(index, name, case.group(name)) for index, name in enumerate(GROUPS) if len(case.group(name))]
    parts = [(index, name, _some(part, most)) for index, name, part in groups]
    scored = [columns(name, part) for _, name, part in parts]
    arrays = {key: np.concatenate([column[key] for column in scored]) for key in scored[0]}
    arrays["group"] = np.repeat([index for index, _, _ in parts], [len(part) for _, _, part in parts])
    return Scores("record", np.concatenate([part.ids for _, _, part in parts]), arrays)


def _some(part: Examples, most: int | None) -> Examples:
    if most is None or len(part) <= most:
        return part
    return part.take(np.sort(np.argsort(hashes(part.ids, "some"), kind="stable")[:most]))
