"""Parameter noise: what unlearning moved is clipped, and noise is added to every weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.defend.base import Guard
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner


@dataclass(frozen=True)
class ParameterNoise(Guard):
    """The inversion paper's parameter obfuscation (section 7), after DP-SGD: clip the unlearning gradient at C, add Gaussian noise.

    The unlearning gradient is all that the guarded method moved, θ_u − θ, of length at most C over all weights together. A single
    gradient, times a learning rate, moves weights far less than the paper's C, which then cuts nothing; retraining moves them
    farther, and is cut. Noise of standard deviation σ is added to each weight, once; running statistics of batch norm are not
    weights. The paper says "variance σ" and prints accuracy ratios from 0.99 to 0.86 for σ from 0.001 to 0.007, which fit a
    standard deviation.

    Guarantees nothing: one release with σ that small has no differential privacy worth a number, and whoever knows of the noise
    averages over releases. It costs accuracy, and an exact method under it is exact no more.
    """

    weakens = "feature_inversion"
    paper = "inversion paper, section 7"
    about = "clips what unlearning moved and adds Gaussian noise to every weight"
    keeps_guarantee = False

    clip: float = setting(1.2, "greatest length of what unlearning moved (C)", source="inversion paper, 7", above=0)
    sigma: float = setting(
        0.003,
        "standard deviation of the noise on each weight (σ)",
        source="inversion paper, 7: 0.001 to 0.007",
        least=0,
    )

    def check(self, unlearner: Unlearner) -> None:
        """It takes any method."""

    def update(
        self,
        unlearner: Unlearner,
        model: nn.Module,
        trained: Trained,
        retain: Examples,
        forget: Examples,
        *,
        rng: Rng,
        meter: Meter,
    ) -> Mapping[str, Tensor] | None:
        kept = unlearner.update(model, trained, retain, forget, rng=rng, meter=meter)
        before = list(trained.model.parameters())
        with torch.no_grad():
            moved = [after - old for after, old in zip(model.parameters(), before, strict=True)]
            length = torch.stack([part.double().square().sum() for part in moved]).sum().sqrt()
            scale = (self.clip / length.clamp_min(1e-30)).clamp_max(1.0)
            draw = rng.child("noise").torch()
            for parameter, old, part in zip(model.parameters(), before, moved, strict=True):
                noise = torch.randn(part.shape, generator=draw).to(part)
                parameter.copy_(old + scale.to(part) * part + self.sigma * noise)
        return kept
