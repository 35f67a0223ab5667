"""The Unlearning Mapping Attack: inputs near the forgotten records at which the unlearned model answers as the original did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from palimpsest.attack.residual.base import AUDITOR, LOSSES, Recovery, recovered
from palimpsest.attack.search import Found, Stop, search
from palimpsest.catalog import setting
from palimpsest.rng import Rng
from palimpsest.threat import View


@dataclass(frozen=True)
class Uma(Recovery):
    """Xuan and Li, "Verifying Robust Unlearning", Algorithm 1, Eq. 4 and 5, for classifiers.

    For each forgotten record x, signed projected gradient descent on L(f_u(x'), f(x)) over ‖x' − x‖∞ ≤ ε within the domain,
    from random noise. The auditor holds both models and the forgotten records.

    Deviations: of all iterates the one with the lowest loss is kept (the attack's own loss, which the adversary knows), not the
    last; records whose posterior has come back leave early (`stop`), which `stop = never` turns off. The paper prints
    steps and step size for its ablation only; those are the defaults.

    A raw number proves nothing: retrained models are recovered too (the paper's Table 2), and class-wise a mere shift of the
    head's bias is recovered like memory. Read it beside the retrained and the bias-matched control. That the attack fails
    does not prove forgetting: the problem is not convex.
    """

    threat = AUDITOR
    paper = "UMA paper, section 4, Algorithm 1"
    about = "perturbs forgotten records until the unlearned model answers as the original did"
    primary = "uma.forget_accuracy"

    loss: Literal["kl", "mse", "bce"] = setting(
        "kl", "kl (of the original's posterior from the subject's), mse or bce, on posteriors", source="paper, Eq. 4"
    )
    steps: int = setting(100, "gradient steps", source="paper, A.1", search=(10.0, 1000.0), least=1)
    step_size: float = setting(
        1 / 255, "step, as a share of the domain's width", source="paper, A.1", search=(0.1 / 255, 4 / 255), above=0
    )
    restarts: int = setting(1, "descents from fresh noise; the best counts", source="paper: one", least=1)
    start: Literal["random", "record"] = setting(
        "random", "random: a uniform draw from the ball; record: the record itself", source="paper, Algorithm 1"
    )
    step_rule: Literal["constant", "decaying", "cosine", "automatic"] = setting(
        "constant",
        "constant; decaying: from half the radius, halved down to step_size; cosine: from half the radius to 0; automatic: APGD's, "
        "which goes by what each record gains",
        source="paper; Croce & Hein 2020; others: ours",
    )
    momentum: float = setting(
        0.0, "momentum of the gradient", source="paper: none; Dong et al. 2018: 1", least=0, below=1
    )
    stop: Literal["never", "converged", "recovered"] = setting(
        "converged",
        "when a record leaves: at a loss of `tolerance`, or when the original's class is back",
        source="ours",
    )
    tolerance: float = setting(1e-4, "loss at which a record counts as converged (nats for kl)", source="ours", above=0)
    layout: Literal["probe", "contiguous", "channels_last"] = setting(
        "probe", "memory layout: the faster in a timed probe, or fixed (results differ by rounding)", source="ours"
    )

    def perturb(self, view: View, inputs: Tensor, wanted: Tensor, rng: Rng) -> Found:
        queued, radii = self.queue(inputs)
        return search(
            view.after.weights(),
            queued,
            wanted.repeat(len(self.epsilon), 1),
            LOSSES[self.loss],
            low=view.task.domain[0],
            high=view.task.domain[1],
            epsilon=radii,
            step_size=self.step_size,
            steps=self.steps,
            restarts=self.restarts,
            start=self.start,
            stop=self._stop(),
            step_rule=self.step_rule,
            momentum=self.momentum,
            batch_size=self.batch_size,
            layout=self.layout,
            rng=rng,
        )

    def _stop(self) -> Stop | None:
        if self.stop == "converged":
            return lambda answer, wanted, loss: loss <= self.tolerance
        return recovered if self.stop == "recovered" else None
