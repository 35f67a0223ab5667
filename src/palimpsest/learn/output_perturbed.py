"""Softmax regression by gradient descent to a proven accuracy, published with noise: models to be unlearned with a proof."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palimpsest.catalog import name_of, setting
from palimpsest.learn._linear import LinearLearner, Saver, publish, rows
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.progress import track
from palimpsest.rng import Rng
from palimpsest.task import Task, as_classification
from palimpsest.types import Examples

STEPS = 500  # gradient steps between looks at whether a checkpoint is due
FLOOR = 1e-9  # A(n) is at least this, far above what rounding in float64 adds


@dataclass(frozen=True)
class OutputPerturbed(LinearLearner):
    """Full-batch gradient descent from zero on F(W) = (1/n)Σ_i CE(Wx_i, y_i) + (λ/2)‖W‖², to within A(n) of the minimum; the model
    gets these weights and Gaussian noise (after Neel, Roth and Sharifi-Malvajerdi 2021, "Descent-to-Delete", the variant that
    keeps a secret state; constants derived here, and so not the paper's to the digit).

    For the model `linear` only. The bias is the weight of a constant feature 1, so that it is regularised too. R is the largest
    norm of a record with that 1. The gradient of a record's CE in W is (p − e_y)xᵀ, of norm at most L = √2·R; its Hessian is
    (diag p − ppᵀ) ⊗ xxᵀ, of norm at most R²/2. So F is m-strongly convex and M-smooth with m = λ and M = λ + R²/2, and a step of
    size 2/(m + M) brings W nearer to the minimum W* by γ = (M − m)/(M + m) at least. Also ‖W*‖ ≤ L/m, as λW* is minus a mean of
    such gradients. With I the iterations that a deletion may take, A(n) = γ^I/(1 − γ^I)·2L/(mn), or
    1e-9 if that is more (so that rounding does not matter), and ⌈ln(L/(m·A(n)))/ln(1/γ)⌉ steps from zero reach it.
    `descent_to_delete` shows that deletions keep it.

    Noise: two runs on the same records, with whatever history, are within 2A(n) of each other. With standard deviation
    σ = 2A(n)/(√2·(√(ln(1/δ) + ε) − √ln(1/δ))) the two releases differ by ρ = (2A)²/(2σ²) of zero-concentrated divergence,
    and so are (ε, δ)-indistinguishable, since ε = ρ + 2√(ρ·ln(1/δ)). With too few iterations σ drowns the weights: I should be
    several times M/m.

    Deviation: R is measured on the training records and then kept, where the theory takes it as known beforehand; the proof
    compares runs with the same R. Guarantees nothing before a deletion: this is no differential privacy for the records that it
    is trained on. Initial weights and the recipe have no part in it. Kept, and secret: the weights before the noise; also those
    `published`, R as `radius`, σ, ε and δ.
    """

    about = "softmax regression by gradient descent, published with noise, for descent_to_delete"

    weight_decay: float = setting(0.5, "λ, for the mean loss, above 0", source="ours", above=0)
    iterations: int = setting(2000, "gradient steps that a deletion takes (I)", source="ours, several M/m", least=1)
    epsilon: float = setting(1.0, "ε of the certificate", source="ours", above=0)
    delta: float = setting(1e-4, "δ of the certificate", source="ours, as for certified_removal", above=0, below=1)

    def learn(
        self, model: nn.Module, task: Task, examples: Examples, recipe: Recipe, *, rng: Rng, meter: Meter,
        checkpoint: Checkpoint | None,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        x = rows(model, examples, "output_perturbed")
        radius = float(x.norm(dim=1).max())
        classes = as_classification(task, name_of(self)).classes
        start = torch.zeros(classes, x.shape[1], dtype=torch.float64, device=x.device)
        far = math.sqrt(2) * radius / self.weight_decay
        steps = max(1, math.ceil(math.log(far / self.distance(radius, len(x))) / -math.log(self.contraction(radius))))
        saver = Saver(checkpoint, examples.ids, meter)
        weights = self.descend(start, x, examples.targets.to(x.device), radius, steps, meter, saver)
        return self.release(model, weights, radius, len(x), rng)

    def contraction(self, radius: float) -> float:
        """γ, the factor by which a step brings the weights nearer to the minimum."""
        smooth = self.weight_decay + radius**2 / 2
        return (smooth - self.weight_decay) / (smooth + self.weight_decay)

    def distance(self, radius: float, records: int) -> float:
        """A(n), within which of the minimum the secret weights are after training and after each deletion."""
        left = self.contraction(radius) ** self.iterations
        return max(FLOOR, left / (1 - left) * 2 * math.sqrt(2) * radius / (self.weight_decay * records))

    def sigma(self, radius: float, records: int) -> float:
        """Standard deviation of the noise in each published weight."""
        least = math.log(1 / self.delta)
        root = math.sqrt(least + self.epsilon) - math.sqrt(least)  # √ρ
        return 2 * self.distance(radius, records) / (math.sqrt(2) * root)

    def descend(
        self,
        weights: Float[Tensor, "k d"],
        x: Float[Tensor, "n d"],
        targets: Int[Tensor, " n"],
        radius: float,
        steps: int,
        meter: Meter,
        saver: Saver,
    ) -> Float[Tensor, "k d"]:
        """So many steps of size 2/(m + M) from these weights."""
        weights, done = saver.found(weights)
        truth = nn.functional.one_hot(targets, len(weights)).double()
        size = 2 / (2 * self.weight_decay + radius**2 / 2)
        for step in track(range(done, steps), "gradient descent"):
            slope = ((x @ weights.T).softmax(1) - truth).T @ x / len(x) + self.weight_decay * weights
            meter.count(len(x))
            weights = weights - size * slope
            if (step + 1) % STEPS == 0:
                saver.save(weights, step + 1)
        saver.done()
        return weights

    def release(
        self, model: nn.Module, weights: Float[Tensor, "k d"], radius: float, records: int, rng: Rng
    ) -> dict[str, Tensor]:
        """Publishes the weights with fresh noise, and returns what is to be kept."""
        sigma = self.sigma(radius, records)
        noise = torch.randn(weights.shape, generator=rng.child("noise").torch(), dtype=torch.float64)
        public = weights + sigma * noise.to(weights.device)
        publish(model, public, "output_perturbed")
        scalars = {"radius": radius, "sigma": sigma, "epsilon": self.epsilon, "delta": self.delta}
        told = {key: torch.tensor(value, dtype=torch.float64) for key, value in scalars.items()}
        return {"weights": weights.cpu(), "published": public.cpu(), **told}
