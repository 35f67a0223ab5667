"""Gradient matching: inputs whose gradient points where a given one does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from palimpsest.attack._adam import Adam
from palimpsest.attack._gradients import along, directed, length, scaled
from palimpsest.errors import BadInput
from palimpsest.progress import track
from palimpsest.rng import Rng
from palimpsest.task import Classification

Gradients = Callable[[Tensor, Tensor], list[Tensor]]
"""Inputs (r, k, …) and targets (r, k, classes) → for each parameter the gradients of the r batches, (r, *parameter.shape)."""
HALVED = (3 / 8, 5 / 8, 7 / 8)
LEAST = 1e-3
"""Share of a gradient's length that must be left of it, once directions are left out, to count for as much as it points."""


@dataclass(frozen=True)
class Descent:
    """How the inputs are looked for. Fields are those of `feature_inversion`, where they are explained."""

    iterations: int
    restarts: int
    lr: float
    total_variation: float
    weight_decay: float = 0.01
    sign: Literal["hard", "soft", "none"] = "hard"
    schedule: Literal["halved", "cosine"] = "halved"
    warmup: int = 0
    norm_prior: float = 0.0
    batching: Literal["probe", "vmap", "loop"] = "probe"

    def rate(self, step: int) -> float:
        """Learning rate of step 0 … iterations−1."""
        done = step / self.iterations
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "cosine":
            return self.lr * rise * 0.5 * (1 + math.cos(math.pi * done))
        return self.lr * rise * 0.5 ** sum(done >= at for at in HALVED)


@dataclass(frozen=True)
class Matched:
    """Each restart's best point: inputs (r, k, *shape) as stored, targets (r, k, classes) as shares, loss (r,), which is 1 − cosine
    without what else was weighed; and the forward-backward passes, one per record, restart and iteration."""

    inputs: Tensor
    targets: Tensor
    loss: Tensor
    evaluations: int

    @property
    def best(self) -> int:
        """The restart with the lowest loss."""
        return int(self.loss.argmin())


def match(
    model: nn.Module,
    task: Classification,
    wanted: Sequence[Tensor],
    targets: Tensor,
    how: Descent,
    *,
    free_targets: bool = False,
    emphasis: Sequence[Tensor] | None = None,
    without: Sequence[Sequence[Tensor]] = (),
    rng: Rng,
) -> Matched:
    """Descends on 1 − cos(∇_θ ℓ(x, y), wanted) + α·TV(x) from Gaussian noise (Geiping et al. 2020; inversion paper, Eq. 3 to 6).

    model: in evaluation mode. wanted: a direction for each of the model's parameters, in their order, of any length. targets:
    shares of the classes for each record, shape (k, classes); free_targets: they are only where the search for them begins.
    emphasis: factors of each parameter's gradient, in both that are compared; none: ones. without: orthogonal directions of
    length one, in the emphasised gradients, that are left out of both. It stays within the domain, whose width is the unit of
    steps; of a restart the iterate counts with which the whole objective is least. The loop waits for no device. Raises
    BadInput for a direction of length zero.
    """
    if emphasis is not None:
        wanted = [part * factor for part, factor in zip(wanted, emphasis, strict=True)]
    for direction in without:
        part = sum(float((w.double() * d).sum()) for w, d in zip(wanted, direction, strict=True))
        wanted = [w - part * d for w, d in zip(wanted, direction, strict=True)]
    unit = directed(wanted)
    if unit is None:
        raise BadInput("gradient to match", got="zero everywhere", expected="a direction")
    wanted = unit
    device = wanted[0].device
    shape = (-1, *([1] * (len(task.shape) - 1)))
    mean, std = (torch.tensor(values, device=device).view(shape) for values in (task.mean, task.std))
    low, high = (((edge.to(device) - mean) / std).expand(task.shape) for edge in task.domain)
    points = torch.stack([_noise(rng.child("start", r), len(targets), task.shape) for r in range(how.restarts)])
    points = points.to(device)
    labels = (targets.clamp_min(1e-6).log() if free_targets else targets).repeat(how.restarts, 1, 1).to(device)
    objective = _Objective(model, task, wanted, mean, std, how, free_targets, emphasis, without)
    gradients = _chosen(objective, points.clamp(low, high), labels, how.batching)
    moved = [Adam(points, how.weight_decay), *([Adam(labels, 0.0)] if free_targets else [])]
    best, kept, least = points, labels, torch.full((2, how.restarts), torch.inf, device=device)
    for step in track(range(how.iterations), "gradient matching", total=how.iterations):
        points = points.clamp(low, high)
        loss, slopes = objective.slopes(gradients, points, labels)
        better = loss[0] < least[0]
        least = torch.where(better, loss, least)
        best = torch.where(better.view(-1, 1, *([1] * len(task.shape))), points, best)
        kept = torch.where(better.view(-1, 1, 1), labels, kept)
        rate = how.rate(step)
        points = moved[0].step(points, _signed(slopes[0], how.sign), rate * (high - low))
        if free_targets:
            labels = moved[1].step(labels, slopes[1], rate)
    shares = F.softmax(kept, 2) if free_targets else kept
    found = (best * std + mean).clamp(task.domain[0].to(device), task.domain[1].to(device))
    return Matched(found, shares, least[1], how.iterations * how.restarts * len(targets))


class _Objective:
    """The loss of each restart, with its slopes."""

    def __init__(
        self,
        model: nn.Module,
        task: Classification,
        wanted: list[Tensor],
        mean: Tensor,
        std: Tensor,
        how: Descent,
        free_targets: bool,
        emphasis: Sequence[Tensor] | None = None,
        without: Sequence[Sequence[Tensor]] = (),
    ) -> None:
        self.model, self.wanted, self.mean, self.std, self.how = model, wanted, mean, std, how
        self.emphasis = None if emphasis is None else [part.to(w) for part, w in zip(emphasis, wanted, strict=True)]
        self.without = [[part.to(w) for part, w in zip(one, wanted, strict=True)] for one in without]
        self.free_targets, self.image = free_targets, len(task.shape) == 3
        self.weights = {name: value.detach() for name, value in model.named_parameters()}
        self.buffers = dict(model.named_buffers())
        self.leaves = {name: value.detach().requires_grad_() for name, value in model.named_parameters()}
        self.norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def loss_of(self, weights: dict[str, Tensor], points: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of one batch with shares of classes as targets."""
        answer = functional_call(self.model, (weights, self.buffers), (points * self.std + self.mean,))
        logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
        return -(targets * F.log_softmax(logits.float(), 1)).sum(1).mean()

    def looped(self, points: Tensor, targets: Tensor) -> list[Tensor]:
        rows = []
        for one, target in zip(points, targets, strict=True):
            loss = self.loss_of(self.leaves, one, target)
            leaves = list(self.leaves.values())
            rows.append(torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True))
        return [torch.stack(parts) for parts in zip(*rows, strict=True)]

    def vmapped(self, points: Tensor, targets: Tensor) -> list[Tensor]:
        return list(vmap(grad(self.loss_of), in_dims=(None, 0, 0))(self.weights, points, targets).values())

    def slopes(self, gradients: Gradients, points: Tensor, labels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss and what of it is 1 − cosine, (2, r), and the loss's slopes in the points and, where they are free, in the labels'
        logits."""
        points = points.detach().requires_grad_()
        labels = labels.detach().requires_grad_(self.free_targets)
        with torch.enable_grad():
            found = gradients(points, F.softmax(labels, 2) if self.free_targets else labels)
            if self.emphasis is not None:
                found = [g * factor for g, factor in zip(found, self.emphasis, strict=True)]
            found = scaled(found)
            size = whole = length(found)
            for direction in self.without:
                part = along(found, direction)
                found = [g - part.view(-1, *([1] * d.dim())) * d for g, d in zip(found, direction, strict=True)]
                size = length(found)
            # what little is left of a gradient that lies in what is left out is rounding, and must not win
            loss = apart = 1 - along(found, self.wanted) / torch.maximum(size, LEAST * whole.detach()).clamp_min(1e-30)
            if self.image and self.how.total_variation:
                loss = loss + self.how.total_variation * total_variation(points * self.std)
            if self.norms and self.how.norm_prior:
                loss = loss + self.how.norm_prior * self._strange(points)
            slopes = torch.autograd.grad(loss.sum(), [points, *([labels] if self.free_targets else [])])
        return torch.stack([loss, apart]).detach(), slopes

    def _strange(self, points: Tensor) -> Tensor:
        """How far each batch's statistics are from those that batch norm keeps, (r,) (Yin et al. 2020)."""
        seen: list[Tensor] = []

        def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = (
                torch.unflatten(given[0], 0, tuple(points.shape[:2])).transpose(1, 2).flatten(2)
            )  # (r, channels, k·places)
            mean, variance = cast(Tensor, module.running_mean), cast(Tensor, module.running_var)
            seen.append((values.mean(2) - mean).norm(dim=1) + (values.var(2, correction=0) - variance).norm(dim=1))

        hooks = [module.register_forward_pre_hook(look) for module in self.norms]
        try:
            self.model(points.flatten(0, 1) * self.std + self.mean)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(seen).sum(0)


def _chosen(objective: _Objective, points: Tensor, labels: Tensor, batching: str) -> Gradients:
    """The way to the gradients: as asked for, or the faster in a timed probe, where `vmap` takes the model at all."""
    if batching != "probe":
        return objective.vmapped if batching == "vmap" else objective.looped
    if len(points) == 1:
        return objective.looped
    took = {}
    for way in (objective.looped, objective.vmapped):
        try:
            for _ in range(2):  # the first call warms up
                start = time.perf_counter()
                objective.slopes(way, points, labels)
                if points.is_cuda:
                    torch.cuda.synchronize(points.device)
                took[way] = time.perf_counter() - start
        except RuntimeError:
            if way is objective.looped:
                raise
    return min(took, key=lambda way: took[way])


def _noise(rng: Rng, records: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(records, *shape, generator=rng.torch())


def _signed(slope: Tensor, sign: str) -> Tensor:
    """The slope's signs; soft: its hyperbolic tangent after scaling to its own mean size."""
    if sign == "hard":
        return slope.sign()
    if sign == "soft":
        size = slope.abs().flatten(1).mean(1).clamp_min(1e-30)
        return (slope / size.view(-1, *([1] * (slope.dim() - 1)))).tanh()
    return slope


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbours across and down, a sum of two means; images (r, …, h, w) → (r,)."""
    across = (images[..., 1:] - images[..., :-1]).abs().flatten(1).mean(1)
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().flatten(1).mean(1)
    return across + down
