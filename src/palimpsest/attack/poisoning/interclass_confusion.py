"""Interclass confusion: two classes swapped on some records, and whether a model still mistakes one for the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.poisoning.base import CONTRIBUTOR, contents
from palimpsest.case import Case
from palimpsest.catalog import name_of
from palimpsest.errors import BadInput
from palimpsest.measures.intervals import share
from palimpsest.rng import Rng
from palimpsest.task import as_classification, predict
from palimpsest.threat import Submission, TrainingView
from palimpsest.types import Measure, Scores


@dataclass(frozen=True)
class InterclassConfusion(Attack):
    """The interclass confusion test (Goel et al. 2022), which the poisoning paper names among the heuristics of others: own records
    are of two classes, and each gets the other's label. All of them are asked to be forgotten; whoever forgets them should tell the
    two classes apart again.

    Success is the share of unseen records of the two classes that are taken for the other one. Some are by any model: read it
    beside the retrained model's. Own records are chosen with `--forget class=3,5:0.5` and the like.
    """

    threat = CONTRIBUTOR
    paper = "Goel et al. 2022; poisoning paper, section 2"
    about = "hands in records of two classes with their labels swapped"
    primary = "interclass_confusion.success_rate"
    owns = "class=3,5:0.8"

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        as_classification(view.task, name_of(self))
        true = view.own.targets.cpu()
        pair = torch.unique(true)
        if len(pair) != 2:
            got, do = f"records of {len(pair)} classes", "forget shares of two, as class=3,5:0.5"
            raise BadInput(name_of(self), got=got, expected="records of two classes", do=do)
        return Submission(view.own.ids, contents(view.own), pair.sum() - true, {"pair": pair})

    def score(self, guess: Guess, case: Case) -> Scores:
        """On test records of the two classes: swapped, whether one is taken for the other; wrong, for any other class."""
        pair = case.submission.kept["pair"]
        seen = case.split.test.take(torch.isin(case.split.test.targets.cpu(), pair))
        answer, true = predict(case.task, case.subject.model, seen).argmax(1).cpu(), seen.targets.cpu()
        arrays = {"swapped": (answer == pair.sum() - true).numpy(), "wrong": (answer != true).numpy()}
        return Scores("record", seen.ids, {**arrays, "label": np.asarray(true)})

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """success_rate: share of the two classes' unseen records taken for the other one; error_rate: for any other one."""
        name = name_of(self)
        return share(f"{name}.success_rate", scores["swapped"]), share(f"{name}.error_rate", scores["wrong"])
