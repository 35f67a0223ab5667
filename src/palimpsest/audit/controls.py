"""Controls that are made from a model at hand: bias-matched ones, and the known leak.

A bias-matched control is a retrained model whose head is shifted until it looks as ready to name the forgotten class.

A method that merely lowers the logit of a forgotten class leaves a model that a small perturbation brings back, and so does the
same lowering applied the other way to a model that never saw the class. Only what UMA recovers beyond this control is
evidence of memory.

The known leak is the original after one plain step of gradient ascent on the forgotten records: an attack on the difference of
two models that finds nothing there finds nothing anywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palimpsest.case import Case, halves
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.task import evaluating
from palimpsest.types import Array, Examples


class Shifted(nn.Module):
    """A model with constants added to its logits, which is the same as to its last layer's biases."""

    shift: Tensor

    def __init__(self, model: nn.Module, shift: Float[Tensor, " k"]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("shift", shift)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        answer = self.model(*inputs, **named)
        logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
        return logits + self.shift


@torch.no_grad()
def logits(trained: Trained, examples: Examples, batch_size: int = 512) -> Float[Tensor, "n k"]:
    """Logits of all records in evaluation mode."""
    with evaluating(trained.model) as model:
        return torch.cat([trained.task.outputs(model, batch).float() for batch in examples.batches(batch_size)])


def gaps(scores: Float[Tensor, "n k"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Logit of the true class minus the highest other logit, per record."""
    own = scores.gather(1, targets[:, None])
    others = scores.scatter(1, targets[:, None], -torch.inf).amax(1, keepdim=True)
    return (own - others).flatten()


Matching = Literal["gap", "accuracy"]
"""What a bias-matched control has in common with the subject, on the forgotten records of each class."""
APART = 1e-3
"""Least gap, of logits, that a record which is to be answered one way keeps from being answered the other way."""


def matching_shift(
    control: Float[Tensor, "n k"],
    subject: Float[Tensor, "n k"],
    targets: Int[Tensor, " n"],
    classes: Sequence[int],
    on: Matching = "gap",
    sweeps: int = 20,
) -> Float[Tensor, " k"]:
    """Constants per forgotten class that give the control the subject's median logit gap on that class's records; on accuracy:
    the nearest to them that leave it as many records right as the subject has.

    For one class the shift is exact: the gap moves by the shift. With several forgotten classes each one's gap depends on the
    others' shifts, so they are swept in turn until they settle.
    """
    shift = torch.zeros(control.shape[1], device=control.device)
    wanted = {c: gaps(subject[targets == c], targets[targets == c]) for c in classes}
    for _ in range(1 if len(classes) == 1 else sweeps):
        for c in classes:
            mine = targets == c
            own = gaps(control[mine] + shift, targets[mine])
            move = wanted[c].median() - own.median()
            shift[c] += move if on == "gap" else _leaving(own, move, int((wanted[c] > 0).sum()))
    return shift


def _leaving(own: Float[Tensor, " n"], move: Tensor, right: int) -> Tensor:
    """The nearest to `move` that brings exactly `right` of the gaps above zero, as far as equal gaps let it."""
    falling = own.sort(descending=True).values
    edge = move.new_tensor(torch.inf)
    least = -falling[right - 1] + APART if right else -edge
    most = -falling[right] - APART if right < len(falling) else edge
    return torch.minimum(torch.maximum(move, least), most) if least <= most else (least + most) / 2


def bias_matched(case: Case, retrained: Trained, on: Matching = "gap") -> Trained:
    """The retrained model with its forgotten classes' biases shifted to the subject's on the forget set, see `matching_shift`."""
    forget = case.forget
    own, wanted = logits(retrained, forget), logits(case.subject, forget)
    shift = matching_shift(own, wanted, forget.targets, case.forgotten_classes, on)
    return retrained.with_model(Shifted(retrained.model, shift).eval())


LEAK = 0.01
"""Length of the known leak's step, as a share of the weights' own: far above what rounding takes from a difference."""


def known_leak(case: Case, batch_size: int = 256) -> Trained:
    """The original after one step along the gradient of its loss on the forgotten records, in evaluation mode."""
    original, forget = case.original, case.split.train.only(case.forgotten)
    model = copy.deepcopy(original.model).eval()
    weights = [parameter.requires_grad_(True) for parameter in model.parameters()]
    totals = [torch.zeros_like(weight) for weight in weights]
    for batch in forget.batches(batch_size):
        loss = original.task.loss(model, batch, reduction="sum")
        for total, part in zip(
            totals, torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True), strict=True
        ):
            total += part
    with torch.no_grad():
        length = torch.stack([total.square().sum() for total in totals]).sum().sqrt()
        own = torch.stack([weight.square().sum() for weight in weights]).sum().sqrt()
        if not bool(length > 0):
            got = "a gradient of zero on the forgotten records"
            raise BadInput("known leak", got=got, expected="a model that can still learn from them", do="train it less")
        for weight, total in zip(weights, totals, strict=True):
            weight += LEAK * own / length * total
            weight.requires_grad_(False)
    return original.with_model(model)


def placebo(case: Case, stand: Callable[[Case], Array]) -> Case:
    """The same models, asked for records of the same classes that none was trained on: those at the places that `stand` chooses
    among the held-out ones in the forget set's place, the others in their own."""
    unseen, chosen = case.heldout, stand(case)
    rest = np.setdiff1d(np.arange(len(unseen)), chosen)
    other = {**case.extra, "forget": unseen.take(chosen), "heldout": unseen.take(rest)}
    return replace(case, target="placebo", extra=other, answers=WeakKeyDictionary())


def half(case: Case) -> Array:
    """Places of a half of the held-out records."""
    return np.flatnonzero(halves(case.heldout, "placebo"))


def stand_ins(case: Case) -> Array:
    """Places of held-out records, one of the same class for each forgotten record and in their order, as far as there are."""
    unseen = case.heldout.targets.cpu().numpy()
    draw = case.rng.child("stand-ins", *sorted(case.forgotten)[:1]).numpy()  # others for another request
    queues = {int(c): iter(draw.permutation(np.flatnonzero(unseen == c)).tolist()) for c in np.unique(unseen)}
    found = [next(queues.get(c, iter(())), None) for c in case.forget.targets.cpu().tolist()]
    return np.asarray([place for place in found if place is not None], dtype=np.int64)
