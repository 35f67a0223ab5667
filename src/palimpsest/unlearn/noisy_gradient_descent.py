"""Noisy gradient descent on the retain set: fine-tuning that also drowns what is left in noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from palimpsest.catalog import setting
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, shuffled, trainable
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner, train_mode


@dataclass(frozen=True)
class NoisyGradientDescent(Unlearner):
    """θ ← θ − η(∇CE(D_r) + σξ), ξ ~ N(0, I) drawn afresh each step (NGD; Chourasia & Shah 2023, Chien et al. 2024).

    Papers scale the noise in different ways, and the poisoning paper does not say which is its own: `noise` chooses among three.
    The published analyses certify unlearning for projected full-batch descent on smooth, bounded losses with noise of a size that
    they compute. Nothing of that holds here, for mini-batches of a deep network: guarantees nothing.
    """

    aliases = ("NGD",)
    about = "train on, on the retain set, with Gaussian noise in each step"
    paper = "Chourasia and Shah 2023; Chien et al. 2024; poisoning paper"
    deviations = "the size of the noise is ambiguous in the papers: `noise` says which"
    spends = "`epochs` passes over the retain set"
    use = "as the empirical form of a certified method: search `sigma` and `lr` together"

    sigma: float = setting(
        0.03, "standard deviation of the noise (σ)", source="public code; the poisoning paper's, by public account, 3.2e-4",
        search=(1e-4, 0.1), least=0)  # fmt: skip
    noise: Literal["gradient", "update", "langevin"] = setting(
        "gradient",
        "what the noise is added to: gradient (ησξ in θ), update (σξ), or langevin (√(2η)·σξ)",
        source="ours",
    )
    lr: float = setting(0.1, "learning rate", source="public code", search=(1e-3, 0.3), above=0)
    epochs: int = setting(2, "passes over the retain set", source="public code", least=1)
    batch_size: int = setting(256, "records a step", source="public code", least=1)
    momentum: float = setting(
        0.0,
        "SGD momentum, through which the noise does not go",
        source="ours: the analyses have none",
        least=0,
        below=1,
    )
    weight_decay: float = setting(5e-4, "decay of all weights", source="public code", least=0)

    def scale(self) -> float:
        """Standard deviation of the noise in a weight, per step."""
        return self.sigma * {"gradient": self.lr, "update": 1.0, "langevin": math.sqrt(2 * self.lr)}[self.noise]

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        parameters, scale = trainable(model), self.scale()
        sgd = torch.optim.SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay)
        train_mode(model, len(retain), self.batch_size)
        noise = rng.child("noise").torch()
        for epoch in range(self.epochs):
            for batch in shuffled(retain, self.batch_size, rng.child("epoch", epoch), name="noisy gradient descent"):
                meter.step(trained.task.loss(model, batch), sgd, len(batch))
                with torch.no_grad():
                    for parameter in parameters:
                        drawn = torch.randn(parameter.shape, generator=noise, dtype=parameter.dtype)
                        parameter.add_(drawn.to(parameter.device), alpha=scale)
