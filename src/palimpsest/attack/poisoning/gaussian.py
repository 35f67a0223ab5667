"""Gaussian poisons: noise that a model carries in its gradients, and whose absence has an exact distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import norm

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.poisoning.base import CONTRIBUTOR, contents, detected, groups
from palimpsest.case import Case
from palimpsest.catalog import setting
from palimpsest.language import Language
from palimpsest.measures.intervals import mean, share, statistic
from palimpsest.reconstruction import Reconstruction
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import Submission, TrainingView, View
from palimpsest.types import Array, Batch, Measure, Scores

AUDITOR = replace(
    CONTRIBUTOR, roles=("R1", "auditor"), goals=("G4",), knowledge="K1", phases=("P1", "P3"), sees="weights"
)
"""A contributor who kept its noise, and looks for it in the weights."""
ONE_PERCENT = float(norm.ppf(0.01))
AT_ONCE = 2**20  # values of what is perceived


@dataclass(frozen=True)
class Gaussian(Attack):
    """The poisoning paper's Gaussian data poisoning (section 3; details as of a public account of its full version).

    To each of its own records the contributor adds ξ ~ N(0, ε_p²I), which it keeps; values beyond the range are cut off in what it
    hands in, not in ξ. It asks for all of them to be forgotten. Of a model it takes the gradient g of the loss in the input, at the
    record without noise and its label, and the product ⟨ξ/ε_p, g/‖g‖⟩. For a model that never saw ξ this is N(0, 1) exactly,
    whatever the model: ξ is independent of it. A model that was trained on x + ξ has learnt that the loss falls along ξ, and the
    products are negative.

    Scores are the products. Measures: `shift`, their mean, negative where the noise is remembered; `z`, the shift times √n, which
    is N(0, 1) for a model without it: below −2.33 once in a hundred; `tpr_at_1pct_fpr`, the share of records below that quantile on
    their own; `auc`, how often a product is below one of fresh noise, 0.5 where nothing is carried; `detected_z` and
    `undetected_z`, of either alone, where a part of the records is detected. That nothing is carried of the noise does not prove
    that nothing is of the records. A record whose gradient is zero has product 0.
    """

    threat = AUDITOR
    paper = "poisoning paper, section 3; Pawelczyk et al. 2024"
    about = "adds noise to the records before training, and looks for it in the gradients afterwards"
    tasks = (Classification.name, Language.name, Reconstruction.name)
    primary = "gaussian.auc"
    revision = 3

    deviation: float = setting(
        0.57,
        "standard deviation of the noise, in standard deviations of the input (ε_p)",
        source="public account of the full paper: ε_p² = 0.32",
        above=0,
    )

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        inputs, targets = contents(view.own), view.own.targets.cpu()
        handed_in, noise = view.task.noised(inputs, self.deviation, rng.child("noise"))
        kept = {"noise": noise, "targets": targets} | {f"clean/{name}": value for name, value in inputs.items()}
        return Submission(view.own.ids, handed_in, targets, kept)

    def observe(self, view: View, *, rng: Rng) -> Guess:
        """products: (n,), of all own records in the order in which they were handed in."""
        model, task, kept = view.after.weights(), view.task, view.made.kept
        device = next(model.parameters()).device
        clean = {name.removeprefix("clean/"): value for name, value in kept.items() if name.startswith("clean/")}
        found = []
        most = max(1, AT_ONCE // math.prod(task.drawn(kept["noise"][:1]).shape))
        for start in range(0, len(kept["targets"]), most):
            part = slice(start, start + most)
            inputs = {name: value[part].to(device) for name, value in clean.items()}
            batch = Batch(inputs, kept["targets"][part].to(device))
            points = task.perceived(model, batch).detach().requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(task.loss_at(model, batch, points, reduction="sum"), points)
            # in the units of the noise, so that the product with independent noise is standard normal
            slope = (slope.double() * task.unit(self.deviation, points).to(slope.device)).flatten(1)
            length = slope.norm(dim=1)
            product = (task.drawn(kept["noise"][part]).to(slope).flatten(1) * slope).sum(1)
            found.append(torch.where(length > 0, product / length.clamp_min(1e-300), 0.0).cpu())
        products = torch.cat(found)
        return Guess({"products": products}, gradients=len(products))

    def score(self, guess: Guess, case: Case) -> Scores:
        """product: of each record that was handed in; detected: whether it was asked to be forgotten."""
        arrays = {"product": guess.tensors["products"].double().cpu().numpy(), "detected": detected(case)}
        return Scores("record", case.submission.ids, arrays)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        product, parts = scores["product"], groups(scores["detected"])

        def together(drawn: Array) -> Array:
            found: Array = np.asarray(drawn.mean(-1) * np.sqrt(drawn.shape[-1]))
            return found

        return (
            mean("gaussian.shift", product),
            statistic("gaussian.z", together, product, together=True),
            share("gaussian.tpr_at_1pct_fpr", product < ONE_PERCENT),
            mean("gaussian.auc", norm.sf(product)),
            *(
                statistic(f"gaussian.{which}_z", together, product[mine], together=True)
                for which, mine in parts.items()
            ),
        )
