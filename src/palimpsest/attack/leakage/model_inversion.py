"""What one model shows of a class: the baseline of an attack that compares two."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage._matching import total_variation
from palimpsest.attack.leakage.base import PROVIDER, Inversion
from palimpsest.catalog import name_of
from palimpsest.progress import track
from palimpsest.rng import Rng
from palimpsest.task import as_classification
from palimpsest.threat import View


@dataclass(frozen=True)
class ModelInversion(Inversion):
    """Fredrikson et al. 2015, "Model Inversion Attacks that Exploit Confidence Information": an input that the original is sure of.

    Descent on 1 − the posterior of the deleted record's class, from mid-grey, as their Algorithm 1. It sees one model, so it knows
    nothing of the deletion: what it reaches is what a class looks like to the model, and an inversion of two models has to do
    better. The same answer serves all records of a class.

    Deviations: a step follows the gradient's signs, its length falls from `lr` to nothing along a line, and there are as many as
    `iterations` says; theirs are gradient steps of one rate, which end where the cost no longer falls. Total variation takes the
    place of their denoising.
    """

    threat = replace(PROVIDER, models="before")
    paper = "Fredrikson et al. 2015, Algorithm 1; inversion paper, section 8"
    about = "draws what one model is sure of for a class; the baseline of feature_inversion"
    primary = "model_inversion.rank"
    reads_steps = False

    def observe(self, view: View, *, rng: Rng) -> Guess:
        task, model, known = as_classification(view.task, name_of(self)), view.before.weights(), view.know("labels")
        device = next(model.parameters()).device
        low, high = (edge.to(device) for edge in task.domain)
        labels = known.to(device)
        points = ((low + high) / 2).expand(len(labels), *task.shape).clone()
        best, least = points, torch.full((len(labels),), torch.inf, device=device)
        for step in track(range(self.iterations), "model inversion", total=self.iterations):
            points = points.detach().requires_grad_()
            with torch.enable_grad():
                answer = model(points)
                logits = answer if isinstance(answer, torch.Tensor) else answer.logits
                loss = 1 - F.softmax(logits.float(), 1).gather(1, labels[:, None]).flatten()
                if points.dim() == 4:
                    loss = loss + self.total_variation * total_variation(points)
                (slope,) = torch.autograd.grad(loss.sum(), points)
            better = loss.detach() < least
            least = torch.where(better, loss.detach(), least)
            best = torch.where(better.view(-1, *([1] * len(task.shape))), points.detach(), best)
            points = (points.detach() - self._rate(step) * (high - low) * slope.sign()).clamp(low, high)
        told = {"loss": float(least.mean()), "weights": sum(part.numel() for part in model.parameters())}
        return Guess({"recovered": best, "labels": labels}, told, gradients=self.iterations * len(labels))

    def _rate(self, step: int) -> float:
        return self.lr * (1 - step / self.iterations)
