"""Descent-to-delete: a few gradient steps from secret weights, and noise on what is published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from palimpsest.learn._linear import Saver, kept_of, rows, whole
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.output_perturbed import OutputPerturbed
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner


@dataclass(frozen=True)
class DescentToDelete(Unlearner):
    """Gradient descent on the remaining records from the weights as they were before the last noise, for I iterations, then fresh
    noise (after Neel, Roth and Sharifi-Malvajerdi 2021, "Descent-to-Delete"). All settings are those of the learner
    `output_perturbed`, whose symbols are used here: both must add the same noise.

    Proof. Let W be within A(n) of the minimum W* on n records, and q of them go, which leaves n'. At W* the gradient of the new
    loss is −(Σ_gone ∇CE + qλW*)/n', of norm at most 2qL/n', as ‖λW*‖ ≤ L. The new minimum is thus at most 2qL/(mn') from W*, and W
    at most A(n) + 2qL/(mn') from it; with A(n) ≤ A(n') = γ^I/(1 − γ^I)·2L/(mn'), this is at most
    A(n')·(γ^I + q(1 − γ^I))/γ^I. For q = 1 it is A(n')/γ^I, and I steps bring W to A(n'). (Where
    A is its floor instead, the same steps do, since they do for the smaller one.) A request of q records takes
    I + ⌈ln(1 + (q − 1)(1 − γ^I))/ln(1/γ)⌉ steps, and so holds the invariant for any number of requests.

    Certified: what is published after a request and what the learner, with the same R, would publish of the remaining records are
    (ε, δ)-indistinguishable, each release alone, even if the requests were chosen, beforehand, with the records in view.
    Nothing is promised of the secret weights, which are a function of all records, the forgotten ones included: they must stay
    secret. Not covered: what several releases tell together, requests chosen after earlier releases.
    `Trained.budget` is the ε of the last release, at the learner's δ. The paper's constants may differ: it has projections
    on a bounded set, and other factors in σ.
    """

    guarantee = "certified"
    needs = "output_perturbed"
    tasks = (Classification.name,)
    aliases = ("D2D", "Descent-to-Delete")
    about = "gradient descent from secret weights, then noise; certified (ε, δ), linear models"
    paper = "Neel et al. 2021"
    deviations = "distances are derived in the docstring, and the norm of the records is measured over them"
    spends = "the learner's number of full gradient steps on the retain set for each request"
    use = "for linear models on fixed features with many requests: the cost of each stays the same"

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor]:
        learner, kept = kept_of(trained, "published", OutputPerturbed, self.needs)
        whole(trained, retain, forget, "descent_to_delete")
        radius, x = float(kept["radius"]), rows(model, retain, self.needs)
        steps = self.steps(learner, radius, len(forget))
        saver = Saver(trained.checkpoint, retain.ids, meter)
        weights = learner.descend(kept["weights"], x, retain.targets, radius, steps, meter, saver)
        return {**trained.kept, **learner.release(model, weights, radius, len(x), rng)}

    @staticmethod
    def steps(learner: OutputPerturbed, radius: float, gone: int) -> int:
        """Gradient steps that so many records take."""
        factor = learner.contraction(radius)
        more = math.log(1 + (gone - 1) * (1 - factor**learner.iterations)) / -math.log(factor)
        return learner.iterations + math.ceil(more)

    def budget(self, kept: Mapping[str, Tensor]) -> float:
        return float(kept["epsilon"])
