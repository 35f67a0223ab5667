"""Flipped labels: records under a wrong class, and whether a model still gives it to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.poisoning.base import CONTRIBUTOR, contents
from palimpsest.case import Case
from palimpsest.catalog import name_of
from palimpsest.language import Language
from palimpsest.measures.intervals import mean, share
from palimpsest.rng import Rng
from palimpsest.task import Classification, as_classification, predict
from palimpsest.threat import Submission, TrainingView
from palimpsest.types import Measure, Scores


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Every own record gets another class than its own, drawn at random. The plainest poison, and a test of unlearning: a model
    that still answers with the wrong class has not forgotten the record (survey, proof of unlearning).

    A model that never saw the labels gives a record some wrong class anyway, now and then that very one: read `success_rate` beside
    the retrained model's. It is no measure of what else is remembered.
    """

    threat = CONTRIBUTOR
    paper = "a baseline; survey, section on verification"
    about = "hands in records under wrong labels"
    tasks = (Classification.name, Language.name)
    primary = "label_flip.success_rate"

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        classes = as_classification(view.task, name_of(self)).classes
        true = view.own.targets.cpu()
        moves = torch.randint(1, classes, (len(true),), generator=rng.child("labels").torch())
        return Submission(view.own.ids, contents(view.own), (true + moves) % classes, {"true": true})

    def score(self, guess: Guess, case: Case) -> Scores:
        """flipped, true: whether the model answers with the wrong class, and with the right one; confidence: in the wrong one."""
        handed_in, own = case.submission, case.forget
        true = dict(zip(handed_in.ids.tolist(), handed_in.kept["true"].tolist(), strict=True))
        posterior = predict(case.task, case.subject.model, own).cpu()
        answer, wrong = posterior.argmax(1).numpy(), own.targets.cpu()
        right = np.array([true[name] for name in own.ids.tolist()])
        arrays = {
            "flipped": answer == wrong.numpy(),
            "true": answer == right,
            "confidence": posterior.gather(1, wrong[:, None]).flatten().double().numpy(),
        }
        return Scores("record", own.ids, arrays)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """success_rate: share answered with the wrong class; true_rate: with the right one; confidence: mean, in the wrong one."""
        return (
            share("label_flip.success_rate", scores["flipped"]),
            share("label_flip.true_rate", scores["true"]),
            mean("label_flip.confidence", scores["confidence"]),
        )
