"""Gradient ascent on the forget set: undo what training did, with no word about the rest."""

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
class GradientAscent(Unlearner):
    """θ ← θ + η∇CE(D_u), `epochs` passes over the forget set (GA; Graves et al. 2021, Thudi et al. 2022).

    Guarantees nothing, and nothing stops it: with a larger rate or more passes it destroys the model. The defaults suit a
    class of CIFAR-10 in ResNet-18; for records drawn at random the public code searches the rate.
    """

    trains_on_forget = True
    aliases = ("GA",)
    about = "ascend the loss on the forget set only"
    paper = "Graves et al. 2021; Thudi et al. 2022"
    spends = "`epochs` passes over the forget set alone"
    use = "to see what damage costs; seldom to delete anything, as nothing stops it"

    lr: float = setting(
        1e-4, "learning rate", source="public code, class-wise; 1e-5 to 0.1 is searched for random records",
        search=(1e-5, 0.1), above=0,
    )  # fmt: skip
    epochs: int = setting(5, "passes over the forget set", source="public code; 1 in another repository", least=1)
    batch_size: int = setting(256, "records a step", source="public code", least=1)
    momentum: float = setting(0.9, "SGD momentum", source="public code", least=0, below=1)
    weight_decay: float = setting(5e-4, "decay of all weights", source="public code", least=0)
    clip: float | None = setting(
        None,
        "largest norm of a step's gradient; none: not clipped",
        source="public code: none; 1 in another repository",
        above=0,
    )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        sgd = torch.optim.SGD(model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)
        train_mode(model, len(forget), self.batch_size)
        for epoch in range(self.epochs):
            for batch in shuffled(forget, self.batch_size, rng.child("epoch", epoch), name="gradient ascent"):
                sgd.zero_grad(set_to_none=True)
                (-trained.task.loss(model, batch)).backward()  # type: ignore[no-untyped-call]
                if self.clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), self.clip)
                sgd.step()
                meter.count(len(batch))
