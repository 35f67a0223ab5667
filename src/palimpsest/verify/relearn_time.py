"""How soon a model knows the forgotten records again when it is trained on them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

from palimpsest.case import Case
from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.language import Language
from palimpsest.learn.loop import Meter, trainable
from palimpsest.measures.intervals import mean, share
from palimpsest.rng import Rng
from palimpsest.task import Classification, predict
from palimpsest.types import Examples, Measure, Scores
from palimpsest.unlearn.base import train_mode
from palimpsest.verify.base import Verifier


@dataclass(frozen=True)
class RelearnTime(Verifier):
    """Steps of plain SGD on forgotten records until each of them is classified rightly (after Tarun et al. 2023).

    Fewer steps than a retrained model needs point to knowledge that was left; as for UMA, class-wise a suppressed
    head alone does it too, so read it beside the retrained and the bias-matched control.
    """

    about = "training steps until the forgotten records are known again"
    tasks = (Classification.name, Language.name)
    bias_matched = True

    lr: float = setting(0.01, "learning rate of plain SGD, no momentum", source="ours", above=0)
    steps: int = setting(40, "steps at most", source="ours", least=1)
    every: int = setting(2, "steps between two looks, at most `steps`", source="ours", least=1)
    batch_size: int = setting(64, "records a step", source="ours", least=1)
    records: int = setting(500, "at most this many forgotten records", source="ours", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every > self.steps:
            expected = f"at most {self.steps}, the number of steps"
            raise BadInput("relearn_time.every", got=self.every, expected=expected)

    def verify(self, case: Case) -> Scores:
        """Scores per record: `relearned_at`, the first look from which the record stays right; steps + every if never."""
        forget, task, rng = self._probe(case), case.task, Rng(case.seed).child("relearn_time")
        model = copy.deepcopy(case.subject.model)
        if not trainable(model):
            model.requires_grad_(True)
        train_mode(model, len(forget), self.batch_size)
        sgd, meter = torch.optim.SGD(model.parameters(), self.lr), Meter()
        targets = forget.targets.cpu()
        looks = [predict(task, model, forget).argmax(1) == targets]
        order = torch.randperm(len(forget), generator=rng.torch())
        for step in range(self.steps):
            start = step * self.batch_size
            batch = forget.batch(order[torch.arange(start, start + min(self.batch_size, len(order))) % len(order)])
            with rng.child("dropout", step).ambient():
                meter.step(task.loss(model, batch), sgd, len(batch))
            if (step + 1) % self.every == 0:
                looks.append(predict(task, model, forget).argmax(1) == targets)
        right = torch.stack(looks).numpy()  # (looks, records)
        wrong_last = np.where(right, 0, np.arange(1, len(right) + 1)[:, None]).max(0)
        return Scores("record", forget.ids, {"relearned_at": wrong_last * self.every})

    def _probe(self, case: Case) -> Examples:
        order = Rng(case.seed).child("relearn_time", "records").numpy().permutation(len(case.forget))
        return case.forget.take(np.sort(order[: self.records]))

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        at = scores["relearned_at"]
        return (
            mean("relearn_time.steps", at),
            share("relearn_time.relearned", at <= self.steps),
        )
