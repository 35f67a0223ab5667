"""Poisons whose gradient points where another one does: the search behind gradient matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from palimpsest.attack._adam import Adam
from palimpsest.attack._gradients import along, directed, length, scaled
from palimpsest.attack.poisoning.base import in_bytes
from palimpsest.errors import BadInput
from palimpsest.progress import track
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Batch, Examples

FALLS = (3 / 8, 5 / 8, 7 / 8)
"""Shares of the steps after which the rate falls to a tenth (Geiping et al. 2021)."""
MOVED = 8
"""A record is moved by at most this fraction of its side."""


@dataclass(frozen=True)
class Brew:
    """How the search goes. epsilon: of the range. step: in units of epsilon. together: records whose gradient is taken at once,
    from each start."""

    epsilon: float
    restarts: int
    iterations: int
    step: float
    augment: Literal["none", "shift", "flip_shift"]
    together: int

    def rate(self, turn: int) -> float:
        return self.step * 0.1 ** sum(turn >= at * self.iterations for at in FALLS)


@dataclass(frozen=True)
class Brewed:
    """inputs: (m, …), the best start's. loss: (restarts,), the lowest of each. gradients: passes, of one record each."""

    inputs: Tensor
    loss: Tensor
    gradients: int


def direction(model: nn.Module, task: Classification, records: Examples, targets: Tensor) -> list[Tensor]:
    """The gradient of the records' loss under other classes in the model's weights, of length one. Raises BadInput for zero."""
    weights = [parameter.requires_grad_() for parameter in model.parameters()]
    plain = records.batch()
    batch = Batch(plain.inputs, targets.to(plain.targets))
    with torch.enable_grad():
        slopes = torch.autograd.grad(
            task.loss(model, batch, reduction="sum"), weights, allow_unused=True, materialize_grads=True
        )
    found = directed([slope.detach() for slope in slopes])
    if found is None:
        raise BadInput("target", got="a gradient of zero", expected="one that points somewhere", do="choose another")
    return found


def brew(
    models: Sequence[nn.Module],
    task: Classification,
    batch: Batch,
    aims: Sequence[Sequence[Tensor]],
    how: Brew,
    *,
    bytes_: bool,
    rng: Rng,
) -> Brewed:
    """Changes records within ε so that the gradient of their summed loss at each model points along its aim, of length one.

    batch: the m records with the labels that they keep. bytes_: whether changes are whole 255ths of the range in the end, within ε.
    All starts go at once; more than `together` records are taken in batches, each of which is to point along the aim by itself, as
    in the public code; what counts is their mean loss. Models are in evaluation mode. Deterministic for an `rng`; restarts do not
    depend on each other.
    """
    name, device = task.attacked_input, next(models[0].parameters()).device
    clean = batch.inputs[name].float().to(device)
    low, high = (edge.to(device).float() for edge in task.domain)
    room = how.epsilon * (high - low)
    starts = torch.stack(
        [torch.rand(clean.shape, generator=rng.child("start", place).torch()) * 2 - 1 for place in range(how.restarts)]
    )
    objectives = [_Objective(model, task, aim) for model, aim in zip(models, aims, strict=True)]
    count, parts = len(clean), -(-len(clean) // how.together)
    records, labels = clean.tensor_split(parts), batch.targets.to(device).tensor_split(parts)
    changes = [
        (one + room * start).clamp(low, high) - one
        for one, start in zip(records, starts.to(device).tensor_split(parts, 1), strict=True)
    ]
    moves = [Adam(change) for change in changes]
    best, least = changes, torch.full((how.restarts,), torch.inf, device=device)
    for turn in track(range(how.iterations), "gradient matching", total=how.iterations):
        before, losses = list(changes), []
        for place, one in enumerate(records):
            change = changes[place].detach().requires_grad_()
            shown = _augmented(one + change, how.augment, rng.child("augment", turn, place))
            with torch.enable_grad():
                loss = torch.stack([objective.loss(shown, labels[place]) for objective in objectives]).mean(0)
                (slope,) = torch.autograd.grad(loss.sum(), change)
            losses.append(loss.detach() * len(one) / count)
            moved = moves[place].step(change.detach(), slope.sign(), how.rate(turn) * room)
            moved = torch.minimum(torch.maximum(moved, -room), room)
            changes[place] = (one + moved).clamp(low, high) - one
        now = torch.stack(losses).sum(0)
        better = (now < least).view(-1, *([1] * clean.dim()))
        best = [torch.where(better, new, old) for new, old in zip(before, best, strict=True)]
        least = torch.minimum(least, now)
    chosen = torch.cat(best, 1)[int(least.argmin())]
    if bytes_:
        chosen = in_bytes(chosen, how.epsilon, high - low)
    spent = how.iterations * how.restarts * count * len(models)
    return Brewed((clean + chosen).clamp(low, high), least, spent)


class _Objective:
    """1 − the cosine between each start's gradient and the aim."""

    def __init__(self, model: nn.Module, task: Classification, aim: Sequence[Tensor]) -> None:
        self.model, self.task, self.aim = model, task, aim
        self.weights = {name: value.detach() for name, value in model.named_parameters()}
        self.buffers = dict(model.named_buffers())
        self.leaves = {name: value.detach().requires_grad_() for name, value in model.named_parameters()}

    def loss(self, shown: Tensor, labels: Tensor) -> Tensor:
        """shown: (restarts, m, …). Returns (restarts,)."""
        if len(shown) == 1:
            leaves = list(self.leaves.values())
            found = torch.autograd.grad(
                self._summed(self.leaves, shown[0], labels), leaves, create_graph=True, materialize_grads=True
            )
            gradients = [part[None] for part in found]
        else:
            gradients = list(vmap(grad(self._summed), in_dims=(None, 0, None))(self.weights, shown, labels).values())
        gradients = scaled(gradients)
        return 1 - along(gradients, self.aim) / length(gradients)

    def _summed(self, weights: dict[str, Tensor], points: Tensor, labels: Tensor) -> Tensor:
        answer = functional_call(self.model, (weights, self.buffers), (points,))
        logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
        return F.cross_entropy(logits.float(), labels, reduction="sum")


def _augmented(images: Tensor, how: str, rng: Rng) -> Tensor:
    """Each record moved by up to an eighth of its side and, where asked for, mirrored; the same for all starts, with a gradient."""
    if how == "none" or images.dim() != 5:
        return images
    draw = rng.torch()
    count, height, width = images.shape[1], *images.shape[3:]
    down = torch.randint(-(height // MOVED), height // MOVED + 1, (count,), generator=draw).to(images.device)
    across = torch.randint(-(width // MOVED), width // MOVED + 1, (count,), generator=draw).to(images.device)
    rows = (torch.arange(height, device=images.device) + down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + across[:, None]).clamp(0, width - 1)
    if how == "flip_shift":
        mirrored = (torch.rand(count, generator=draw) < 0.5).to(images.device)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    places = torch.arange(count, device=images.device)[:, None, None]
    found: Tensor = images.permute(1, 3, 4, 0, 2)[places, rows[:, :, None], columns[:, None, :]].permute(3, 0, 4, 1, 2)
    return found
