"""Transfer: forgotten records made more typical for the original model, and shown to the unlearned one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from palimpsest.attack.residual.base import AUDITOR, Recovery
from palimpsest.attack.search import Found, search
from palimpsest.catalog import setting
from palimpsest.rng import Rng
from palimpsest.threat import View


@dataclass(frozen=True)
class Transfer(Recovery):
    """Signed gradient steps on the original model that widen its margin for the class that it names (after Papernot et al. 2016).

    The unlearned model's weights are not used at all. A check on UMA: where this brings back more than an attack on the unlearned
    model's own gradients does, those are masked or the attack is mis-set. That it fails proves nothing.
    """

    threat = replace(AUDITOR, models="before")
    paper = "Papernot et al. 2016, transferability; aim after the UMA paper, Eq. 4"
    about = "check of UMA: inputs found on the original alone"
    primary = "transfer.forget_accuracy"

    steps: int = setting(100, "gradient steps", source="as for uma", least=1)
    step_size: float = setting(1 / 255, "step, as a share of the domain's width", source="as for uma", above=0)

    def perturb(self, view: View, inputs: Tensor, wanted: Tensor, rng: Rng) -> Found:
        queued, radii = self.queue(inputs)
        return search(
            view.before.weights(),
            queued,
            wanted.argmax(1).repeat(len(self.epsilon)),
            shortfall,
            low=view.task.domain[0],
            high=view.task.domain[1],
            epsilon=radii,
            step_size=self.step_size,
            steps=self.steps,
            batch_size=self.batch_size,
            start="record",
            layout="contiguous",
            rng=rng,
        )


def shortfall(answer: Tensor, named: Tensor) -> Tensor:
    """The highest other logit minus the named class's, shape (n,): no bound below."""
    own = answer.gather(1, named[:, None])
    others = answer.scatter(1, named[:, None], -torch.inf).amax(1, keepdim=True)
    return (others - own).flatten()
