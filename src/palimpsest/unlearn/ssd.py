"""Selective synaptic dampening: shrink the weights that matter to the forget set far more than to the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.language import Language
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.curvature import Curvature, drawn


@dataclass(frozen=True)
class SelectiveSynapticDampening(Unlearner):
    """θ_i ← min(λF_D,i/F_u,i, 1)·θ_i where F_u,i > αF_D,i, with F the diagonal of the empirical Fisher matrix over D_u and over
    D = D_u ∪ D_r (SSD; Foster et al. 2024).

    The importances are means of squared gradients of single records, as the paper defines them; its public code squares the
    gradients of whole batches. No training. The model is in evaluation mode; batch norm's running statistics stay as they are.
    Guarantees nothing.
    """

    tasks = (Classification.name, Language.name)
    aliases = ("SSD",)
    about = "shrink the weights that matter most to the forget set; no training"
    paper = "Foster et al. 2024"
    deviations = (
        "importances are means of squared gradients of single records, as the paper defines them, where its "
        "public code squares those of batches"
    )
    spends = "one gradient of each record, no training"
    use = "where there is no time to train; search `alpha`, which decides how many weights are hit"

    alpha: float = setting(
        10.0,
        "how many times as important for the forget set a weight must be (α)",
        source="public code",
        search=(0.1, 100.0),
        above=0,
    )
    dampening: float = setting(
        1.0, "strength of the shrinking (λ); smaller is stronger", source="public code", search=(0.1, 5.0), above=0
    )
    samples: int | None = setting(
        None, "records of D, drawn at random, for its importances; none: all", source="the paper: all", least=1
    )
    vectorised: bool = setting(
        True, "gradients of many records a call; else one by one, with the same result", source="ours"
    )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        model.eval()
        curvature = Curvature(model, trained.task, meter)
        gone = curvature.importances(forget, vectorised=self.vectorised)
        everything = self._everything(curvature, retain, forget, gone, rng)
        chosen = gone > self.alpha * everything
        shrink = torch.where(chosen, (self.dampening * everything / gone.clamp_min(1e-45)).clamp(max=1.0), 1.0)
        with torch.no_grad():
            for parameter, part in zip(curvature.parameters, curvature.parts(shrink), strict=True):
                parameter.mul_(part)

    def _everything(self, curvature: Curvature, retain: Examples, forget: Examples, gone: Tensor, rng: Rng) -> Tensor:
        """F_D, from the forget set's importances and the retain set's; or from a sample."""
        total = len(retain) + len(forget)
        if self.samples is None or self.samples >= total:
            kept = curvature.importances(retain, vectorised=self.vectorised)
            return (len(forget) * gone + len(retain) * kept) / total
        chosen = drawn(Examples.joined([forget, retain]), self.samples, rng.child("importances"))
        return curvature.importances(chosen, vectorised=self.vectorised)
