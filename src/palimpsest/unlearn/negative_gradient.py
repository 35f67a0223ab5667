"""Negative gradient: descend on the retain set and ascend on the forget set in the same step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from palimpsest.catalog import setting
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, shuffled
from palimpsest.rng import Rng
from palimpsest.types import Batch, Examples
from palimpsest.unlearn.base import Unlearner, train_mode


@dataclass(frozen=True)
class NegativeGradient(Unlearner):
    """θ ← θ − η∇(α·CE(D_r) − (1 − α)·CE(D_u)) (NegGrad+; Kurmanji et al. 2023; NGP in the poisoning paper).

    One epoch is one pass over D_r; D_u is gone through in batches of its own as often as that takes. Guarantees nothing: with
    α too small, or too many epochs, the ascent wins and the model is destroyed.
    """

    trains_on_forget = True
    aliases = ("NegGrad+", "NGP")
    about = "descend on the retain set, ascend on the forget set"
    paper = "Kurmanji et al. 2023; NGP in the poisoning paper"
    spends = "`epochs` passes over the retain set, and as many batches of the forget set"
    use = "for random records with a searched `alpha`, where gradient ascent alone destroys the model"

    alpha: float = setting(
        0.95, "weight of the retain loss (α), in [0, 1]", source="public code, small data; 0.9999 for large",
        search=(0.8, 0.99999), least=0, most=1)  # fmt: skip
    lr: float = setting(0.01, "learning rate", source="public code", search=(1e-3, 0.3), above=0)
    epochs: int = setting(5, "passes over the retain set", source="public code: 5 to 10", least=1)
    batch_size: int = setting(256, "records a step, of each set", source="public code", least=1)
    momentum: float = setting(0.9, "SGD momentum", source="public code", least=0, below=1)
    weight_decay: float = setting(5e-4, "decay of all weights", source="public code", least=0)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        task = trained.task
        sgd = torch.optim.SGD(model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)
        train_mode(model, min(len(retain), len(forget)), self.batch_size)
        gone = cycled(forget, self.batch_size, rng.child("forget"))
        for epoch in range(self.epochs):
            for kept in shuffled(retain, self.batch_size, rng.child("epoch", epoch), name="negative gradient"):
                lost = next(gone)
                loss = self.alpha * task.loss(model, kept) - (1 - self.alpha) * task.loss(model, lost)
                meter.step(loss, sgd, len(kept) + len(lost))


def cycled(examples: Examples, size: int, rng: Rng) -> Iterator[Batch]:
    """Batches without end, in a new order on each pass."""
    turn = 0
    while True:
        yield from shuffled(examples, size, rng.child("pass", turn))
        turn += 1
