"""SCRUB: a student disobeys its teacher on the forget set, and obeys it on the retain set."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from palimpsest.catalog import setting
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, shuffled
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner, train_mode


@dataclass(frozen=True)
class Scrub(Unlearner):
    """Each epoch: while epoch ≤ `max_epochs`, a pass over D_u that ascends T²·KL(teacher ‖ student); then a pass over D_r that
    descends γ·CE + α·T²·KL(teacher ‖ student) (Kurmanji et al. 2023, with their public code's settings).

    The teacher is the model before unlearning, in evaluation mode. KL is taken between posteriors at temperature T and averaged
    over the batch. Guarantees nothing.
    """

    trains_on_forget = True
    aliases = ("SCRUB",)
    about = "away from a teacher on the forget set, back to it on the retain set"
    paper = "Kurmanji et al. 2023"
    deviations = "none known: optimiser, T, passes and weights are the public code's for CIFAR-10; batches and decay, of its copies"
    spends = "`epochs` passes over the retain set and a few over the forget set, each with the teacher's forward pass"
    use = "for random records and for mislabelled ones; `scrub_rewind` where membership inference is the concern"

    alpha: float = setting(
        0.5,
        "weight of the distance to the teacher on the retain set (α)",
        source="public code",
        search=(1e-3, 2.0),
        least=0,
    )
    gamma: float = setting(
        1.0, "weight of the cross-entropy on the retain set (γ)", source="public code: 1 or 0.99", least=0
    )
    temperature: float = setting(
        4.0, "temperature of both posteriors (T), above 0", source="public code for CIFAR-10; 2 for small data", above=0
    )
    max_epochs: int = setting(
        3,
        "first epochs, which have a pass over the forget set",
        source="public code for CIFAR-10; 2 or 3 elsewhere",
        least=0,
    )
    optimizer: Literal["adam", "sgd"] = setting(
        "sgd", "adam or sgd", source="public code for CIFAR-10; Adam for small data"
    )
    lr: float = setting(5e-4, "learning rate", source="public code", search=(1e-5, 0.1), above=0)
    decay_at: tuple[int, ...] = setting(
        (3, 5, 9),
        "epochs after which the rate falls to a tenth",
        source="public code for CIFAR-10; 5, 8, 9 for small data",
        least=0,
    )
    epochs: int = setting(
        5, "passes over the retain set", source="public code for CIFAR-10; 10 for small data", least=1
    )
    forget_batch_size: int = setting(
        64, "forget records a step", source="public code for CIFAR-10; 512 for small data", least=1
    )
    batch_size: int = setting(
        64, "retain records a step", source="public code for CIFAR-10; 128 for small data", least=1
    )
    momentum: float = setting(0.9, "SGD momentum; Adam's first beta", source="public code", least=0, below=1)
    weight_decay: float = setting(5e-4, "decay of all weights", source="public code", least=0)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        for _ in self.passes(model, trained, retain, forget, rng=rng, meter=meter):
            pass

    def passes(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Iterator[int]:
        """Moves the model's weights, an epoch at a time, and says which one is done."""
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        moves = self._optimizer(model)
        for epoch in range(self.epochs):
            stream = rng.child("epoch", epoch)
            for group in moves.param_groups:
                group["lr"] = self.lr * 0.1 ** sum(epoch >= at for at in self.decay_at)
            if epoch < self.max_epochs:
                train_mode(model, len(forget), self.forget_batch_size)
                for batch in shuffled(forget, self.forget_batch_size, stream.child("forget"), name="scrub: forget"):
                    away = -trained.task.distillation(model, teacher, batch, self.temperature)
                    meter.step(away, moves, len(batch))
            train_mode(model, len(retain), self.batch_size)
            for batch in shuffled(retain, self.batch_size, stream.child("retain"), name="scrub: retain"):
                back = self.alpha * trained.task.distillation(model, teacher, batch, self.temperature)
                meter.step(self.gamma * trained.task.loss(model, batch) + back, moves, len(batch))
            yield epoch

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            betas = (self.momentum, 0.999)
            return torch.optim.Adam(model.parameters(), self.lr, betas, weight_decay=self.weight_decay)
        return torch.optim.SGD(model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)
