"""Gradient canceling: records under which a corrupted model is a place where training stops."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.attack._adam import Adam
from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.poisoning.base import CONTRIBUTOR, contents, in_bytes
from palimpsest.case import Case
from palimpsest.catalog import name_of, setting
from palimpsest.measures.intervals import mean, share
from palimpsest.progress import track
from palimpsest.rng import Rng
from palimpsest.task import Classification, as_classification, predict
from palimpsest.threat import Submission, TrainingView
from palimpsest.types import Batch, Examples, Measure, Scores

CANCELER = replace(CONTRIBUTOR, goals=("G1",), knowledge="K2", knows=("others", "recipe", "architecture"))
"""A contributor who knows the architecture, the recipe and the records of others."""
AT_ONCE = 256


@dataclass(frozen=True)
class GradientCanceling(Attack):
    """The poisoning paper's indiscriminate attack: parameter corruption (Sun et al. 2020), then records that cancel the gradient
    there (gradient canceling, Lu, Kamath & Yu 2023).

    The adversary trains a model of its own and climbs its training loss within a ball of `radius` around the weights: θ*. Then it
    changes its records, labels as they are, until the gradient of all records together, its own included, is as small as it can
    be at θ*: ‖Σ_others ∇ℓ(θ*) + Σ_own ∇ℓ(θ*)‖², over all tensors of weights. Where that is zero, training from θ* stays there; a
    training from elsewhere may or may not come by.

    It asks for all of its own records to be forgotten. Success is the error on test records. Inputs stay in their range; with
    `epsilon` below 1 each value changes by at most that share of it, also once it is rounded to a byte. Deviations: signs of the
    gradient into Adam, where a public implementation takes plain gradient steps of 5 over its first tensor of weights alone, and
    never clamps.
    """

    threat = CANCELER
    paper = "Sun et al. 2020; Lu et al. 2023; poisoning paper, section 3 and Table 1"
    about = "hands in records that hold a model at corrupted weights"
    primary = "gradient_canceling.error_rate"
    needs_many = True
    revision = 2

    radius: float = setting(0.5, "how far the weights are moved, Euclidean", source="public code", above=0)
    corruption: int = setting(50, "steps of moving them", source="ours", least=1)
    epsilon: float = setting(1.0, "greatest change of a value, as a share of its range", source="ours", above=0, most=1)
    iterations: int = setting(500, "steps on the records", source="public code: 2,000", least=1)
    step: float = setting(0.05, "highest step, of the range; falls along a cosine", source="ours", above=0)

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        task, own, others = as_classification(view.task, name_of(self)), view.own, view.know("others")
        model = view.fit(Examples.joined([others, own]), rng.child("surrogate"))
        start = _loss(model, task, others)
        corrupted = self._corrupted(model, task, others)
        wanted = _summed(corrupted, task, others.batches(AT_ONCE))
        batch, name = own.batch(), task.attacked_input
        inputs = self._cancel(corrupted, task, batch, wanted)
        clean = batch.inputs[name].float().to(inputs)
        if own.inputs[name].dtype == torch.uint8:
            low, high = (edge.to(clean) for edge in task.domain)
            inputs = (clean + in_bytes(inputs - clean, self.epsilon, high - low)).clamp(low, high)
        kept = {
            "residual": torch.stack([_left(corrupted, task, batch, each, wanted) for each in (clean, inputs)]).cpu(),
            "change": (inputs - clean).abs().amax().view(1).cpu(),
            "corruption": torch.tensor([start, _loss(corrupted, task, others)], dtype=torch.float64),
        }
        handed_in = contents(own) | {name: inputs.cpu()}
        gradients = (self.corruption + 1) * len(others) + 2 * (self.iterations + 1) * len(own)
        return Submission(own.ids, handed_in, batch.targets.cpu(), kept, gradients)

    def _corrupted(self, model: nn.Module, task: Classification, records: Examples) -> nn.Module:
        """The model with weights that raise its loss within the ball: steps along the gradient, brought back to its surface."""
        moved = copy.deepcopy(model).eval()
        weights = [parameter.requires_grad_() for parameter in moved.parameters()]
        home = [parameter.detach().clone() for parameter in weights]
        for _ in range(self.corruption):
            slopes = _summed(moved, task, records.batches(AT_ONCE))
            size = _length(slopes).clamp_min(1e-30)
            with torch.no_grad():
                away = [w + self.radius / 5 * g / size - old for w, g, old in zip(weights, slopes, home, strict=True)]
                within = (self.radius / _length(away)).clamp_max(1.0)
                for weight, old, part in zip(weights, home, away, strict=True):
                    weight.copy_(old + within * part)
        return moved

    def _cancel(self, model: nn.Module, task: Classification, batch: Batch, wanted: list[Tensor]) -> Tensor:
        """The records whose gradient is nearest to minus `wanted`. A step takes two passes: one for the sum, one for its slope in
        each record, so that memory holds few at a time."""
        name, weights = task.attacked_input, [parameter.requires_grad_() for parameter in model.parameters()]
        clean = batch.inputs[name].float().to(wanted[0].device)
        low, high = (edge.to(clean) for edge in task.domain)
        room = self.epsilon * (high - low)
        bottom, top = torch.maximum(clean - room, low), torch.minimum(clean + room, high)
        points = clean.clone()
        moves, best, least = Adam(points), points, torch.tensor(torch.inf, dtype=torch.float64, device=points.device)
        for turn in track(range(self.iterations), "gradient canceling", total=self.iterations):
            rest = [a + b for a, b in zip(wanted, _summed(model, task, _parts(task, batch, points)), strict=True)]
            left = _length(rest)
            best, least = torch.where(left < least, points, best), torch.minimum(left, least)
            slopes: list[Tensor] = []
            for part in _parts(task, batch, points):
                here = part.inputs[name].detach().requires_grad_()
                with torch.enable_grad():
                    loss = task.loss(model, Batch({name: here}, part.targets), reduction="sum")
                    inner = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
                    along = torch.stack([(a * b).sum() for a, b in zip(inner, rest, strict=True)]).sum()
                    slopes += torch.autograd.grad(along, here)
            rate = self.step * (1 + math.cos(math.pi * turn / self.iterations)) / 2
            moved = moves.step(points, torch.cat(slopes).sign(), rate * (high - low))
            points = torch.minimum(torch.maximum(moved, bottom), top)
        return best

    def score(self, guess: Guess, case: Case) -> Scores:
        """wrong: of each test record, whether it is misread. residual: what is left of the gradient with the records as they are
        handed in, as a share of the others'. change: the greatest of any value that is trained on."""
        answer = predict(case.task, case.subject.model, case.split.test).argmax(1).cpu()
        wrong = (answer != case.split.test.targets.cpu()).numpy()
        kept = case.submission.kept
        told = {"residual": kept["residual"][1], "change": kept["change"][0]}
        arrays = {name: np.full(len(wrong), float(value)) for name, value in told.items()}
        return Scores("record", case.split.test.ids, {"wrong": wrong, **arrays})

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """error_rate: share of test records that are misread. residual: what was left of the gradient at the corrupted weights.
        change: the greatest of any value that was trained on."""
        name = name_of(self)
        return (
            share(f"{name}.error_rate", scores["wrong"]),
            mean(f"{name}.residual", scores["residual"]),
            mean(f"{name}.change", scores["change"]),
        )


def _length(parts: list[Tensor]) -> Tensor:
    return torch.stack([part.detach().double().square().sum() for part in parts]).sum().sqrt()


def _left(model: nn.Module, task: Classification, batch: Batch, points: Tensor, wanted: list[Tensor]) -> Tensor:
    """The length of `wanted` plus these records' gradient, as a share of `wanted`."""
    rest = [a + b for a, b in zip(wanted, _summed(model, task, _parts(task, batch, points)), strict=True)]
    return _length(rest) / _length(wanted)


def _parts(task: Classification, batch: Batch, points: Tensor) -> Iterator[Batch]:
    """The records with other inputs, some at a time."""
    labels = torch.split(batch.targets.to(points.device), AT_ONCE)
    for each, targets in zip(torch.split(points, AT_ONCE), labels, strict=True):
        yield Batch({task.attacked_input: each}, targets)


def _summed(model: nn.Module, task: Classification, batches: Iterable[Batch]) -> list[Tensor]:
    """The gradient of the records' summed loss in the model's weights."""
    weights = [parameter.requires_grad_() for parameter in model.parameters()]
    total = [torch.zeros_like(weight) for weight in weights]
    for batch in batches:
        with torch.enable_grad():
            loss = task.loss(model, batch, reduction="sum")
            slopes = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        total = [a + b for a, b in zip(total, slopes, strict=True)]
    return total


@torch.no_grad()
def _loss(model: nn.Module, task: Classification, records: Examples) -> float:
    """Mean over the records."""
    return sum(float(task.loss(model, batch, reduction="sum")) for batch in records.batches(AT_ONCE)) / len(records)
