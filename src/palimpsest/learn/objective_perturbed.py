"""Logistic regression, one class against the rest, whose loss has a random linear term: models to be unlearned with a proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.learn._linear import LinearLearner, Saver, publish, rows
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.rng import Rng
from palimpsest.task import Task, as_classification
from palimpsest.types import Examples

STEPS = 200  # Newton steps for one class after which to give up; ten are many


@dataclass(frozen=True)
class ObjectivePerturbed(LinearLearner):
    """For each class k the minimum of Σ_i ℓ(w_k·x_i, y_ik) + (λ/2)·n·‖w_k‖² + b_k·w_k, with ℓ the logistic loss, y_ik whether
    record i is of class k, and b_k ~ N(0, σ²I) (Chaudhuri et al. 2011; Guo et al. 2020, "Certified Data Removal", section 3).

    For the model `linear` only. The bias is the weight of a constant feature 1, so that it is regularised and perturbed too. The
    minimum is found by Newton's method in float64 from zero weights: initial weights and the recipe have no part in it. It takes
    O(n·d²) a step for d features, and holds all records at once.

    Kept: weights (k, d + 1) in float64, b as `perturbation`, σ, λ, and the gradient's norm at the weights, by class, as
    `residual`. These are secrets: `certified_removal` certifies what is published, which is the model alone. The classes'
    answers are made apart, so that their softmax is a ranking more than a calibrated probability.

    σ alone makes no model differentially private: that takes more conditions than are checked here.
    """

    about = "one-vs-rest logistic regression with a random linear term, for certified_removal"

    sigma: float = setting(
        3.0,
        "standard deviation of the random linear term (σ), in units of the summed loss's gradient",
        source="ours, for some hundred records; 10 in the paper's code for 60,000",
        above=0,
    )
    weight_decay: float = setting(
        0.1,
        "λ, for each record",
        source="ours, for features of unit variance; 2e-4 in the paper's, of unit norm",
        above=0,
    )
    tolerance: float = setting(
        1e-8, "norm of a class's gradient (of the summed loss) at which Newton's method stops", source="ours", above=0
    )

    def learn(
        self, model: nn.Module, task: Task, examples: Examples, recipe: Recipe, *, rng: Rng, meter: Meter,
        checkpoint: Checkpoint | None,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        classes = as_classification(task, name_of(self)).classes
        x = rows(model, examples, "objective_perturbed")
        targets = examples.targets.to(x.device)
        draw = rng.child("perturbation").torch()
        drawn = self.sigma * torch.randn(classes, x.shape[1], generator=draw, dtype=torch.float64)
        weights = self.minimise(x, targets, drawn.to(x.device), meter, Saver(checkpoint, examples.ids, meter))
        publish(model, weights, "objective_perturbed")
        residual = torch.stack(
            [
                gradient(weights[k], x, targets == k, self.weight_decay, drawn[k].to(x.device)).norm()
                for k in range(classes)
            ]
        )
        scalars = {"sigma": self.sigma, "weight_decay": self.weight_decay}
        told = {key: torch.tensor(value, dtype=torch.float64) for key, value in scalars.items()}
        return {"weights": weights.cpu(), "perturbation": drawn, "residual": residual.cpu(), **told}

    def minimise(
        self,
        x: Float[Tensor, "n d"],
        targets: Int[Tensor, " n"],
        perturbation: Float[Tensor, "k d"],
        meter: Meter,
        saver: Saver,
    ) -> Float[Tensor, "k d"]:
        """The minimum for each class. A step is halved until the gradient's norm falls, which a strictly convex loss grants.

        Raises BadInput where it does not, for rounding."""
        weights, done = saver.found(torch.zeros_like(perturbation))
        for k in range(done // (STEPS + 1), len(weights)):
            positive, b = targets == k, perturbation[k]
            for step in range(done % (STEPS + 1), STEPS + 1):  # and a look after the last step
                slope = gradient(weights[k], x, positive, self.weight_decay, b)
                meter.count(len(x))
                if float(slope.norm()) <= self.tolerance:
                    break
                if step == STEPS:
                    raise self._stuck(float(slope.norm()))
                direction = torch.linalg.solve(hessian(weights[k], x, self.weight_decay), slope)
                meter.count(len(x))
                length = 1.0
                while length > 1e-12:
                    tried = weights[k] - length * direction
                    meter.count(len(x))
                    if gradient(tried, x, positive, self.weight_decay, b).norm() < slope.norm():
                        break
                    length /= 2
                else:
                    raise self._stuck(float(slope.norm()))
                weights[k] = tried
                saver.save(weights, k * (STEPS + 1) + step + 1)
            done = 0
        saver.done()
        return weights

    def _stuck(self, norm: float) -> BadInput:
        do = "raise objective_perturbed.tolerance or its weight_decay"
        return BadInput("training", got=f"a gradient of norm {norm:.2g}", expected=f"{self.tolerance:g}", do=do)


def gradient(
    weights: Float[Tensor, " d"],
    x: Float[Tensor, "n d"],
    positive: Tensor,
    decay: float,
    perturbation: Float[Tensor, " d"] | float = 0.0,
) -> Float[Tensor, " d"]:
    """Of Σℓ + (λ/2)·n·‖w‖² + b·w for one class over these records; positive: shape (n,), whether a record is of that class."""
    return x.T @ (torch.sigmoid(x @ weights) - positive.double()) + decay * len(x) * weights + perturbation


def hessian(weights: Float[Tensor, " d"], x: Float[Tensor, "n d"], decay: float) -> Float[Tensor, "d d"]:
    """Of the same loss; it depends on no class."""
    share = torch.sigmoid(x @ weights)
    bend = x.T @ (x * (share * (1 - share))[:, None])
    bend.diagonal().add_(decay * len(x))
    return bend
