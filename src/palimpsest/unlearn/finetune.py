"""Fine-tuning on the retain set, in the hope that the rest is forgotten on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from palimpsest.catalog import setting
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, shuffled
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner, train_mode


@dataclass(frozen=True)
class Finetune(Unlearner):
    """θ ← θ − η∇CE(D_r), `epochs` passes (FT in the UMA paper, after Warnecke et al. 2021; GD in the poisoning paper).

    Guarantees nothing: the forget set is never looked at.
    """

    aliases = ("FT", "GD")
    about = "train on, on the retain set only"
    paper = "Warnecke et al. 2021; FT in the UMA paper, GD in the poisoning paper"
    spends = "`epochs` passes over the retain set"
    use = "as the baseline that any method which looks at the forget set has to beat"

    lr: float = setting(
        0.01, "learning rate", source="public code, class-wise; 0.04 for random records", search=(1e-3, 0.3), above=0
    )
    epochs: int = setting(10, "passes over the retain set", source="public code", least=1)
    batch_size: int = setting(256, "records a step", source="public code", least=1)
    momentum: float = setting(0.9, "SGD momentum", source="public code", least=0, below=1)
    weight_decay: float = setting(5e-4, "decay of all weights", source="public code", least=0)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        sgd = torch.optim.SGD(model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)
        train_mode(model, len(retain), self.batch_size)
        for epoch in range(self.epochs):
            for batch in shuffled(retain, self.batch_size, rng.child("epoch", epoch), name="finetune"):
                meter.step(trained.task.loss(model, batch), sgd, len(batch))
