"""Flipped labels: records under a wrong class, and whether a model still gives it to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.poisoning.base import CONTRIBUTOR, contents, detected, groups
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
    """Every own record gets another class than its own, drawn at random, and is asked to be forgotten. The plainest poison, and a
    test of unlearning: a model that still answers with the wrong class has not forgotten the record (survey, proof of unlearning).

    A model that never saw the labels gives a record some wrong class anyway, now and then that very one: read `success_rate` beside
    the retrained model's. It is no measure of what else is remembered.
    """

    threat = CONTRIBUTOR
    paper = "a baseline; survey, section on verification"
    about = "hands in records under wrong labels"
    tasks = (Classification.name, Language.name)
    primary = "label_flip.success_rate"
    revision = 2

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        classes = as_classification(view.task, name_of(self)).classes
        true = view.own.targets.cpu()
        moves = torch.randint(1, classes, (len(true),), generator=rng.child("labels").torch())
        return Submission(view.own.ids, contents(view.own), (true + moves) % classes, {"true": true})

    def score(self, guess: Guess, case: Case) -> Scores:
        """Per record that was handed in: flipped, true: whether the model answers with the wrong class, and with the right one;
        confidence: in the wrong one; detected: whether it was asked to be forgotten."""
        made = case.submission
        handed_in = case.split.train.only(made.ids.tolist())
        posterior = predict(case.task, case.subject.model, handed_in).cpu()
        place = {name: at for at, name in enumerate(handed_in.ids.tolist())}
        posterior = posterior[[place[name] for name in made.ids.tolist()]]
        answer, wrong = posterior.argmax(1), made.targets.cpu()
        arrays = {
            "flipped": (answer == wrong).numpy(),
            "true": (answer == made.kept["true"]).numpy(),
            "confidence": posterior.gather(1, wrong[:, None]).flatten().double().numpy(),
            "detected": detected(case),
        }
        return Scores("record", made.ids, arrays)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """success_rate: share answered with the wrong class; true_rate: with the right one; confidence: mean, in the wrong one.
        detected_success_rate, undetected_success_rate: of either alone, where a part of what was handed in is detected."""
        parts = groups(scores["detected"])
        return (
            share("label_flip.success_rate", scores["flipped"]),
            share("label_flip.true_rate", scores["true"]),
            mean("label_flip.confidence", scores["confidence"]),
            *(share(f"label_flip.{which}_success_rate", scores["flipped"][mine]) for which, mine in parts.items()),
        )
