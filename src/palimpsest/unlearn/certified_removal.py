"""Certified removal: a Newton step on each class of a linear model, with a bound on what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.learn._linear import kept_of, publish, rows, whole
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.objective_perturbed import ObjectivePerturbed, gradient, hessian
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.retrain import Retrain

GAMMA = 0.25  # bounds the logistic loss's third derivative, as in the paper …
LEAST = 1 / (6 * math.sqrt(3))  # … and the smallest number that does


@dataclass(frozen=True)
class CertifiedRemoval(Unlearner):
    """w_k ← w_k + H_k⁻¹Δ_k for each class k, with Δ_k = Σ_u(∇ℓ(w_k·x, y_k) + λw_k) over the m forgotten records and H_k the Hessian
    of the loss of the others at w_k (Guo et al. 2020, "Certified Data Removal from Machine Learning Models", section 3; the
    step for m > 1 is that of its batch removal). Only for models that the learner `objective_perturbed` trained.

    At a minimum of the loss on n records the step v = H_k⁻¹Δ_k is Newton's towards that on n − m, and leaves a gradient of norm
    at most β_k = γ·‖X‖₂·max_i|x_i·v|·‖Xv‖₂, γ = 1/4, X the other records. The paper (Corollary 1) has ‖v‖₂ in the place of the
    maximum, for records of norm at most 1; with the maximum it is never larger there, and true of any records. `bound` "tight"
    is ours: the part of record i in what is left is at most γ(x_i·v)²/2, by Taylor, so that β_k = (γ/2)·‖X‖₂·√Σ_i(x_i·v)⁴ with
    γ = 1/(6√3), five times smaller at least. What training and each removal left is added up by class. Once its norm over all
    classes, √Σβ_k², would exceed σε/c with c = √(2·ln(1.5/δ)), the model is trained anew on the remaining records, with a fresh b,
    and the sum starts again.

    Certified: the published model and a retrained one, with random numbers of its own, are (ε, δ)-indistinguishable
    (Theorem 3), each release alone. As b is drawn for all classes together and the norm is taken over all, this covers the
    whole model, where the paper certifies each class alone. The usual proof of such theorems takes ε at most 1; by the exact
    tail of the Gaussian privacy loss, N(ε²/2c², ε²/c²), it holds up to ε = 2·ln 3, and so up to 2 here.

    Not covered: what several releases tell together (the model before and the model after most of all); requests chosen by
    somebody who saw earlier releases; that the trigger depends on b, which the paper leaves out too; rounding in float64; what
    else holds the record, such as a network that was trained on it and makes the features. What `objective_perturbed` and this
    method keep (float64 weights, b, the sum) must stay secret. `Trained.budget` is the ε, at this δ, that the sum so far
    amounts to.
    """

    guarantee = "certified"
    needs = "objective_perturbed"
    tasks = (Classification.name,)
    aliases = ("certified data removal", "CDR", "Newton update removal")
    about = "a Newton step on a linear model, certified (ε, δ) until it trains anew"
    paper = "Guo et al. 2020"
    deviations = (
        "the bound holds for records of any norm, where the paper's asks for norms of at most 1; `bound=tight` is ours"
    )
    spends = "one gradient and one Hessian of the retain set for each class; training anew when the budget is spent"
    use = "for linear models on fixed features, where a certificate is wanted and requests are few"

    epsilon: float = setting(1.0, "ε of the certificate, at most 2", source="ours, after the paper", above=0, most=2)
    delta: float = setting(1e-4, "δ of the certificate", source="ours, after the paper", above=0, most=0.5)
    bound: Literal["paper", "tight"] = setting(
        "paper", "on the gradient left by a step: Corollary 1 for any norm of the records, or ours", source="the paper"
    )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor]:
        _, kept = kept_of(trained, "weights", ObjectivePerturbed, self.needs)
        whole(trained, retain, forget, "certified_removal")
        x, gone = (rows(model, part, self.needs) for part in (retain, forget))
        weights = kept["weights"]
        step, left = newton_steps(weights, x, gone, forget.targets, float(kept["weight_decay"]), self.bound)
        meter.count((len(x) + len(gone)) * len(weights), 2 * len(weights))
        residual = kept["residual"] + left
        if float(residual.norm()) > self.most(float(kept["sigma"])):
            anew = rng.child("anew")  # so that b is fresh even where the model was trained from this very stream
            return Retrain().update(model, trained, retain, forget, rng=anew, meter=meter)
        publish(model, weights + step, self.needs)
        return {**trained.kept, "weights": (weights + step).cpu(), "residual": residual.cpu()}

    def most(self, sigma: float) -> float:
        """Norm of the gradient up to which the certificate holds: σε/c."""
        return sigma * self.epsilon / self.sharpness()

    def sharpness(self) -> float:
        """c of Theorem 3: δ = 1.5·exp(−c²/2)."""
        return math.sqrt(2 * math.log(1.5 / self.delta))

    def budget(self, kept: Mapping[str, Tensor]) -> float:
        return float(kept["residual"].norm()) * self.sharpness() / float(kept["sigma"])


def newton_steps(
    weights: Float[Tensor, "k d"],
    x: Float[Tensor, "n d"],
    gone: Float[Tensor, "m d"],
    targets: Int[Tensor, " m"],
    decay: float,
    bound: str = "paper",
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """For each class the Newton step that takes `gone`, of these classes, out, and the bound on the gradient that it leaves."""
    largest = torch.linalg.eigvalsh(x.T @ x)[-1].clamp_min(0).sqrt()  # ‖X‖₂
    steps, bounds = [], []
    for k, row in enumerate(weights):
        step = torch.linalg.solve(hessian(row, x, decay), gradient(row, gone, targets == k, decay))
        moved = x @ step  # (n,)
        steps.append(step)
        if bound == "tight":
            bounds.append(LEAST / 2 * largest * moved.square().norm())
        else:
            bounds.append(GAMMA * largest * moved.abs().max() * moved.norm())
    return torch.stack(steps), torch.stack(bounds)
