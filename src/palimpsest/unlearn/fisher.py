"""Fisher forgetting: noise on each weight, the more the less the retain set needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from palimpsest.catalog import name_of, setting
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Classification, as_classification
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.curvature import Curvature, drawn


@dataclass(frozen=True)
class Fisher(Unlearner):
    """θ_i ← θ_i + √(α·min(F_i^−`power`, `largest`))·ξ_i with ξ ~ N(0, 1) and F the diagonal of the Fisher matrix over D_r (after
    Golatkar et al. 2020, "Eternal Sunshine of the Spotless Net"; details reconstructed).

    The paper derives a covariance that falls with the square root of F; its public code uses the inverse, as here. That code also
    averages over filters and has rules of its own for the last layer, batch norm and the forgotten class, which are left out. No
    training. In theory the noise bounds what a reader of the weights can tell of the forget set near a quadratic
    optimum; for a deep network it guarantees nothing.
    """

    tasks = (Classification.name,)
    aliases = ("fisher forgetting", "FF")
    about = "noise on each weight by the inverse Fisher information of the retain set; no training"
    paper = "Golatkar et al. 2020"
    deviations = (
        "details reconstructed: the inverse of the Fisher information as in the public code, without its "
        "averaging over filters and its rules for single layers"
    )
    spends = "`classes` gradients of each of `samples` retain records, no training"
    use = "on small models, to compare with noise; accuracy falls with `alpha`"

    alpha: float = setting(1e-9, "strength of the noise (α)", source="public code", search=(1e-10, 1e-4), above=0)
    largest: float = setting(1e3, "largest variance, before α", source="public code's cap", above=0)
    power: float = setting(
        1.0, "how the variance falls with F; 0.5 in the paper's derivation", source="public code", least=0
    )
    labels: Literal["posterior", "true"] = setting(
        "posterior", "expectation over the model's own posterior (the Fisher matrix), or the true labels (the empirical one)",
        source="public code: posterior",
    )  # fmt: skip
    samples: int | None = setting(
        None, "retain records, drawn at random; none: all", source="public code: all", least=1
    )
    vectorised: bool = setting(
        True, "gradients of many records a call; else one by one, with the same result", source="ours"
    )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        model.eval()
        curvature = Curvature(model, trained.task, meter)
        chosen = drawn(retain, self.samples, rng.child("importances"))
        if self.labels == "posterior":
            classes = as_classification(trained.task, name_of(self)).classes
            importances = curvature.expected_importances(chosen, classes, vectorised=self.vectorised)
        else:
            importances = curvature.importances(chosen, vectorised=self.vectorised)
        spread = (self.alpha * (importances + 1e-8).pow(-self.power).clamp(max=self.largest)).sqrt()
        draw = rng.child("noise").torch()
        with torch.no_grad():
            for parameter, part in zip(curvature.parameters, curvature.parts(spread), strict=True):
                noise = torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
                parameter.add_(part * noise.to(parameter.device))
