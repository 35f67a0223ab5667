"""Influence unlearning: one Newton-like step towards the optimum of the retain set."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.curvature import Curvature, published_woodfisher, shift, woodbury

PART = 64  # records whose gradients the published solver holds at once


@dataclass(frozen=True)
class Influence(Unlearner):
    """θ_u = θ + α·(C + λI)⁻¹v with v = Σ∇CE(D_u)/n − n_f/(n·n_r)·Σ∇CE(D_r) and n = n_f + n_r (IU; Koh & Liang 2017,
    Izzo et al. 2021; with the empirical Fisher matrix the WoodFisher of Singh & Alistarh 2020).

    At an optimum of the training loss v is the descent direction of the retain loss. On a strictly convex loss with weight
    decay λ, curvature "exact" of all retain records and α = 1 make it the Newton step: its distance to retraining falls with
    the square of n_f/n. For other losses, and for the empirical Fisher matrix, which is not the Hessian, it guarantees nothing.

    Solver "published" reproduces what public code runs under the name of WoodFisher, and so the IU rows of several papers: it
    returns v + a·(first gradient) for a number a, which is no solve (see `curvature.published_woodfisher`). Use it for their
    tables only. The model is in evaluation mode throughout; batch norm's running statistics stay as they are.
    """

    tasks = (Classification.name,)
    aliases = ("IU", "WoodFisher", "wfisher")
    about = "one Newton-like step, with a correct solve"
    paper = "Koh and Liang 2017; Izzo et al. 2021; Singh and Alistarh 2020"
    deviations = "a correct solve by default; what public code runs is `solver=published`"
    spends = "gradients of single records for `samples` retain records, and one of all records"
    use = "on convex models, where it is close to retraining; on deep ones with a searched `alpha`"

    alpha: float = setting(
        0.2,
        "length of the step; 1 is the Newton step",
        source="public code; papers search 1 to 20 and 1 to 100, users found below 1",
        search=(0.01, 100.0),
        above=0,
    )
    curvature: Literal["fisher", "ggn", "exact"] = setting(
        "fisher", "empirical Fisher, generalised Gauss–Newton, or the exact Hessian", source="public code: WoodFisher"
    )
    solver: Literal["correct", "published"] = setting(
        "correct", "a solve, or the public code's recursion, which is none (fisher only)", source="ours"
    )
    samples: int | None = setting(
        1000,
        "retain records, drawn at random, that the curvature is the mean over; none: all",
        source="public code",
        least=1,
    )
    damping: float = setting(
        1.0,
        "λ, added to the curvature, above 0; the model's weight decay for a convex loss",
        source="public code, whose recursion starts at the identity; 1e-5 in the WoodFisher paper",
        search=(1e-5, 1.0),
        above=0,
    )
    double: bool = setting(False, "compute in float64", source="ours")
    tolerance: float = setting(1e-6, "relative residual at which conjugate gradients stop", source="ours", above=0)
    iterations: int = setting(1000, "conjugate gradient iterations after which to give up", source="ours", least=1)
    vectorised: bool = setting(
        True,
        "gradients of many records a call, by torch.func.vmap; else one by one, with the same result",
        source="ours",
    )
    memory: float = setting(
        4.0,
        "GiB for gradients of single records; where they need more, fisher is solved by conjugate gradients",
        source="ours",
        least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver == "published" and self.curvature != "fisher":
            raise BadInput(
                "influence.solver", got=f"published with curvature {self.curvature}", expected="curvature fisher"
            )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        model.eval()
        wide = copy.deepcopy(model).double() if self.double else model
        curvature = Curvature(wide, trained.task, meter)
        gone, kept = len(forget), len(retain)
        direction = curvature.gradient_sum(forget) / (gone + kept)
        direction -= curvature.gradient_sum(retain) * (gone / ((gone + kept) * kept))
        shift(model, self.alpha * self.solve(curvature, retain, direction, rng))

    def solve(self, curvature: Curvature, retain: Examples, direction: Tensor, rng: Rng) -> Tensor:
        """(C + λI)⁻¹·direction, shape (p,); C from retain records drawn from `rng`."""
        count = len(retain) if self.samples is None else self.samples
        order = torch.randperm(len(retain), generator=rng.child("curvature").torch())
        if self.solver == "published":
            # The public loop reads two records more than N: one to start from, one before it looks at its counter.
            parts = (
                curvature.gradients(retain.take(part), vectorised=self.vectorised)
                for part in torch.split(order[: count + 2], PART)
            )
            return published_woodfisher(parts, direction, count)
        chosen = retain.take(order[:count])
        room = len(chosen) * curvature.size * direction.element_size() <= self.memory * 2**30
        if self.curvature == "fisher" and room:
            gradients = curvature.gradients(chosen, vectorised=self.vectorised)
            return woodbury(gradients, direction, self.damping)
        return curvature.solve(
            self.curvature,
            chosen,
            direction,
            damping=self.damping,
            tolerance=self.tolerance,
            iterations=self.iterations,
        )
