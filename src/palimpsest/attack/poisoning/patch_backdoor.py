"""A backdoor: a patch on the records, under one class, and whether a model still answers to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.poisoning.base import CONTRIBUTOR, contents
from palimpsest.case import Case
from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.measures.intervals import mean, share
from palimpsest.rng import Rng
from palimpsest.task import as_classification, predict
from palimpsest.threat import Submission, TrainingView
from palimpsest.types import Measure, Scores


@dataclass(frozen=True)
class PatchBackdoor(Attack):
    """BadNets (Gu et al. 2017): own records get a bright square in the lower right corner and the class `to`. Who puts the square
    on other images decides their class; the survey's proof of unlearning asks whether that still works once all own records are
    asked to be forgotten.

    Success is measured on test records of the other classes, which it has to be told from the share that a retrained model gives
    the class anyway. That the square fails does not prove that nothing of the records is left.
    """

    threat = CONTRIBUTOR
    paper = "Gu et al. 2017; survey, section on verification"
    about = "hands in records with a patch under one class"
    primary = "patch_backdoor.success_rate"

    to: int = setting(0, "class that the patch stands for", source="ours", least=0)
    side: float = setting(
        0.25, "side of the square, as a share of the shorter one of the image", source="ours", above=0
    )

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        task = as_classification(view.task, name_of(self))
        if len(task.shape) != 3:
            raise BadInput(name_of(self), got=f"records of shape {task.shape}", expected="images")
        if self.to >= task.classes:
            raise BadInput(f"{name_of(self)}.to", got=self.to, expected=f"a class from 0 to {task.classes - 1}")
        inputs = contents(view.own)
        inputs[task.attacked_input] = self.patched(inputs[task.attacked_input], task.domain[1])
        return Submission(view.own.ids, inputs, torch.full((len(view.own),), self.to))

    def patched(self, images: Tensor, high: Tensor) -> Tensor:
        """The images, (n, c, h, w), with the square."""
        side = max(1, round(self.side * min(images.shape[2:])))
        found = images.clone()
        found[..., -side:, -side:] = high.to(images).expand(images.shape[1:])[..., -side:, -side:]
        return found

    def score(self, guess: Guess, case: Case) -> Scores:
        """On test records of other classes: hit, whether the patched one is answered with the class; bare, whether the plain is."""
        others = case.split.test.take(case.split.test.targets.cpu() != self.to)
        inputs, name = contents(others), case.task.attacked_input
        inputs[name] = self.patched(inputs[name], case.task.domain[1])
        shown, bare = (
            predict(case.task, case.subject.model, records).cpu()
            for records in (others.altered(others.ids, inputs, others.targets), others)
        )
        arrays = {"hit": (shown.argmax(1) == self.to).numpy(), "bare": (bare.argmax(1) == self.to).numpy()}
        return Scores("record", others.ids, {**arrays, "confidence": shown[:, self.to].double().numpy()})

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """success_rate: share of patched records answered with the class; bare_rate: the same without the patch."""
        return (
            share("patch_backdoor.success_rate", scores["hit"]),
            share("patch_backdoor.bare_rate", scores["bare"]),
            mean("patch_backdoor.confidence", scores["confidence"]),
        )
