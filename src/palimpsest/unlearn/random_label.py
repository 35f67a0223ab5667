"""Random labels: teach the model noise about the forget set, then the retain set again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, shuffled
from palimpsest.reconstruction import Reconstruction
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Batch, Examples
from palimpsest.unlearn.base import Unlearner, train_mode
from palimpsest.unlearn.negative_gradient import cycled

Order = Literal["by task", "passes", "joint"]
ORDER = "passes: all of the forget set, then all of the retain set; joint: a batch of both a step; by task: joint for images"


@dataclass(frozen=True)
class RandomLabel(Unlearner):
    """Each epoch: one pass over D_u under labels drawn afresh, then one pass over D_r (RL; Golatkar et al. 2020, as in
    SalUn's public code).

    A model of images takes a step on a batch of both instead, ℓ(θ; D_u under noise) + α ℓ(θ; D_r), the form that SalUn's paper
    gives to generation: after a pass over D_r alone it draws the forgotten records again.

    The labels are uniform over all classes, the true one included. Guarantees nothing: the forget records are still trained
    on, and what the model says of them may tell them apart from records that it never saw.
    """

    trains_on_forget = True
    aliases = ("RL",)
    about = "random labels for the forget set, then the retain set"
    paper = "Golatkar et al. 2020"
    deviations = "labels are drawn afresh in each epoch, as in SalUn's public code"
    spends = "`epochs` passes over all records; of images over the retain set, with a batch of the forget set each step"
    use = "class-wise, as a strong and simple baseline; it is what SalUn adds a mask to"

    lr: float = setting(
        0.01, "learning rate", source="public code's default rate of unlearning", search=(1e-3, 0.3), above=0
    )
    epochs: int = setting(10, "passes over the forget set and the retain set", source="public code", least=1)
    batch_size: int = setting(256, "records a step", source="public code", least=1)
    momentum: float = setting(0.9, "SGD momentum", source="public code", least=0, below=1)
    weight_decay: float = setting(5e-4, "decay of all weights", source="public code", least=0)
    order: Literal["by task", "passes", "joint"] = setting(
        "by task", ORDER, source="public code for classifiers; SalUn's paper for generation"
    )
    alpha: float = setting(
        1.0, "weight of the retain set's loss in a joint step (α)", source="SalUn's paper, for generation", above=0
    )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        sgd = torch.optim.SGD(model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)
        relabelled(
            model, trained.task, retain, forget, sgd, self.batch_size, self.epochs, order=self.order, alpha=self.alpha,
            rng=rng, meter=meter,
        )  # fmt: skip


def relabelled(
    model: nn.Module,
    task: Task,
    retain: Examples,
    forget: Examples,
    sgd: torch.optim.Optimizer,
    batch_size: int,
    epochs: int,
    *,
    order: Order,
    alpha: float,
    rng: Rng,
    meter: Meter,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Epochs of the forget set under fresh random labels and of the retain set; `after_step` after each step."""
    together = order == "joint" or (order == "by task" and isinstance(task, Reconstruction))
    labels, gone = rng.child("labels").torch(), cycled(forget, batch_size, rng.child("forget"))

    def noised(batch: Batch) -> Tensor:
        return task.loss(model, batch.with_targets(task.randomise(batch.targets, labels)))

    def step(loss: Tensor, records: int) -> None:
        meter.step(loss, sgd, records)
        after_step()

    for epoch in range(epochs):
        turn = rng.child("epoch", epoch)
        if not together:
            labels = turn.child("labels").torch()
            train_mode(model, len(forget), batch_size)
            for lost in shuffled(forget, batch_size, turn.child("forget"), name="random labels"):
                step(noised(lost), len(lost))
        train_mode(model, min(len(retain), len(forget)) if together else len(retain), batch_size)
        for kept in shuffled(retain, batch_size, turn.child("retain"), name="retain set"):
            if together:
                lost = next(gone)
                step(noised(lost) + alpha * task.loss(model, kept), len(lost) + len(kept))
            else:
                step(task.loss(model, kept), len(kept))
