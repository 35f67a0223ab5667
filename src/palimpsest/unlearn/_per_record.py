"""The gradients of single records, many at a time: the matrix G whose row i is the gradient of record i's loss.

Three ways to the same G. `by_layers`: one batched backward pass down to the layers' outputs, from which each layer's rows
follow; for linear layers, convolutions and batch norm. `by_vmap`: `torch.func.vmap`, for any model that it can take.
`one_by_one`: a loop, for the rest. The model must be in evaluation mode, so that records do not mix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from palimpsest.errors import BadInput
from palimpsest.task import Task
from palimpsest.types import Batch

STRIP = 128  # rows of the Gram matrix that are computed at once


class Losses(nn.Module):
    """A model and its task as one module: inputs and targets in, the loss of each record out, shape (n,)."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, inputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        outputs = self.task.outputs(self.model, Batch(inputs, targets))
        return self.task.loss_of(outputs, targets, reduction="none")


@dataclass(frozen=True)
class Dense:
    """Columns of G as they are: rows has shape (n, columns)."""

    rows: Tensor

    @property
    def columns(self) -> int:
        return self.rows.shape[1]

    def add_gram(self, total: Tensor) -> None:
        for start in range(0, len(self.rows), STRIP):
            end = min(start + STRIP, len(self.rows))
            total[start:end, :end] += self.rows[start:end] @ self.rows[:end].T

    def times(self, vector: Tensor) -> Tensor:
        return self.rows @ vector

    def transposed(self, weights: Tensor) -> Tensor:
        return self.rows.T @ weights


@dataclass(frozen=True)
class Outer:
    """Columns of G whose row i is the outer product of left[i] and right[i]; shapes (n, a) and (n, b), a·b columns."""

    left: Tensor
    right: Tensor

    @property
    def columns(self) -> int:
        return self.left.shape[1] * self.right.shape[1]

    def add_gram(self, total: Tensor) -> None:
        total += (self.left @ self.left.T) * (self.right @ self.right.T)

    def times(self, vector: Tensor) -> Tensor:
        return ((self.left @ vector.view(self.left.shape[1], -1)) * self.right).sum(1)

    def transposed(self, weights: Tensor) -> Tensor:
        return ((self.left * weights.unsqueeze(1)).T @ self.right).reshape(-1)


@dataclass(frozen=True)
class Gradients:
    """G, shape (count, p), in blocks of columns; `zeros` is a zero of shape (count,) of its dtype and device."""

    blocks: tuple[Dense | Outer, ...]
    zeros: Tensor

    @staticmethod
    def of(rows: Tensor) -> Gradients:
        return Gradients((Dense(rows),), torch.zeros_like(rows[:, 0]))

    def __len__(self) -> int:
        return len(self.zeros)

    def gram(self) -> Tensor:
        """GGᵀ, shape (count, count); only the lower half is to be read."""
        total = self.zeros.new_zeros(len(self), len(self))
        for block in self.blocks:
            block.add_gram(total)
        return total

    def times(self, vector: Tensor) -> Tensor:
        """G·vector, shape (count,)."""
        parts = torch.split(vector, [block.columns for block in self.blocks])
        return torch.stack([block.times(part) for block, part in zip(self.blocks, parts, strict=True)]).sum(0)

    def transposed(self, weights: Tensor) -> Tensor:
        """Gᵀ·weights, shape (p,)."""
        return torch.cat([block.transposed(weights) for block in self.blocks])

    def row(self, index: int) -> Tensor:
        """The gradient of one record, shape (p,)."""
        unit = self.zeros.clone()
        unit[index] = 1.0
        return self.transposed(unit)


def one_by_one(losses: Losses, parameters: list[nn.Parameter], batches: Iterable[Batch], count: int) -> Gradients:
    """A backward pass for each record; the batches hold one record each."""
    rows = _empty(parameters, count, sum(parameter.numel() for parameter in parameters))
    for index, batch in enumerate(batches):
        loss = losses(batch.inputs, batch.targets).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        rows[index] = torch.cat([part.reshape(-1) for part in found])
    return Gradients.of(rows)


def by_vmap(losses: Losses, parameters: list[nn.Parameter], batches: Iterable[Batch], count: int) -> Gradients:
    """All records of a batch in one vectorised call. Raises BadInput where vmap cannot take the model."""
    weights = {name: parameter.detach() for name, parameter in losses.named_parameters()}
    buffers = dict(losses.named_buffers())

    def loss_of_one(weights: dict[str, Tensor], inputs: dict[str, Tensor], target: Tensor) -> Tensor:
        one = {name: value.unsqueeze(0) for name, value in inputs.items()}
        found: Tensor = functional_call(losses, (weights, buffers), (one, target.unsqueeze(0)))
        return found.squeeze(0)

    per_record = vmap(grad(loss_of_one), in_dims=(None, 0, 0))
    rows = _empty(parameters, count, sum(parameter.numel() for parameter in parameters))
    start = 0
    for batch in batches:
        try:
            found = per_record(weights, dict(batch.inputs), batch.targets)
        except RuntimeError as error:
            got, do = f"torch.func.vmap failed: {str(error).splitlines()[0]}", "set vectorised=false"
            raise BadInput("gradients per record", got=got, expected="a model that vmap can take", do=do) from error
        column = 0
        for name in weights:
            part = found[name].reshape(len(batch), -1)
            rows[start : start + len(batch), column : column + part.shape[1]] = part
            column += part.shape[1]
        start += len(batch)
    return Gradients.of(rows)


def by_layers(losses: Losses, parameters: list[nn.Parameter], batches: Iterable[Batch], count: int) -> Gradients | None:
    """One backward pass a batch, and only down to the layers' outputs. None where that cannot give all of G: a parameter outside
    of the known layers, a layer used twice or not at all, weights shared, or used outside of their layer. The first and the
    last row are checked against a backward pass of their own.
    """
    owners = [module for module in losses.modules() if any(True for _ in module.parameters(recurse=False))]
    owned = [id(parameter) for module in owners for parameter in module.parameters(recurse=False)]
    if not all(_known(module) for module in owners) or sorted(owned) != sorted(id(p) for p in parameters):
        return None
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        calls.append((module, inputs[0].detach(), output))
        return output.clone()  # what comes next may work in place

    parts: dict[int, list[Dense | Outer]] = {id(parameter): [] for parameter in parameters}
    ends: list[Batch] = []
    hooks = [module.register_forward_hook(remember) for module in owners]
    try:
        for batch in batches:
            calls.clear()
            loss = losses(batch.inputs, batch.targets).sum()
            if sorted(id(module) for module, _, _ in calls) != sorted(id(module) for module in owners):
                return None
            outputs = [output for _, _, output in calls]
            slopes = torch.autograd.grad(loss, outputs, allow_unused=True, materialize_grads=True)
            for (module, given, _), slope in zip(calls, slopes, strict=True):
                if len(given) != len(batch):
                    return None
                for parameter, block in _blocks(module, given, slope):
                    parts[id(parameter)].append(block)
            ends = [*ends[:1], _single(batch, -1)] if ends else [_single(batch, 0), _single(batch, -1)]
    finally:
        for hook in hooks:
            hook.remove()
    blocks = []
    for parameter in parameters:
        blocks.append(_joined(parts.pop(id(parameter))))
    gradients = Gradients(tuple(blocks), parameters[0].new_zeros(count).detach())
    truth = one_by_one(losses, parameters, ends, 2)
    for index, row in ((0, truth.row(0)), (count - 1, truth.row(1))):
        if not float((gradients.row(index) - row).norm()) <= 1e-2 * float(row.norm()):
            return None
    return gradients


def _known(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
        return not module.training and module.running_mean is not None
    return type(module) is nn.Linear


def _blocks(module: nn.Module, given: Tensor, slope: Tensor) -> list[tuple[nn.Parameter, Dense | Outer]]:
    """Each parameter of a layer with its columns of G, from the layer's input and the slope of the loss in its output."""
    count = len(given)
    weight: Dense | Outer
    if isinstance(module, nn.Linear) and given.dim() == 2:
        weight, bias = Outer(slope, given), slope
    elif isinstance(module, nn.Linear):
        slope = slope.reshape(count, -1, module.out_features)
        weight = Dense((slope.transpose(1, 2) @ given.reshape(count, -1, module.in_features)).reshape(count, -1))
        bias = slope.sum(1)
    elif isinstance(module, nn.Conv2d):
        patches = F.unfold(given, module.kernel_size, module.dilation, cast(Any, module.padding), module.stride)
        slope = slope.reshape(count, module.out_channels, -1)
        weight = Dense((slope @ patches.transpose(1, 2)).reshape(count, -1))
        bias = slope.sum(2)
    else:
        norm = cast(nn.BatchNorm2d, module)
        over = (1, -1, *([1] * (given.dim() - 2)))
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scaled = (given - mean.view(over)) * (variance + norm.eps).rsqrt().view(over)
        weight = Dense((slope * scaled).reshape(count, norm.num_features, -1).sum(2))
        bias = slope.reshape(count, norm.num_features, -1).sum(2)
    named = {"weight": weight, "bias": Dense(bias)}
    return [(parameter, named[name]) for name, parameter in module.named_parameters(recurse=False)]


def _joined(blocks: list[Dense | Outer]) -> Dense | Outer:
    """The blocks of all batches, one below the other."""
    outer = [block for block in blocks if isinstance(block, Outer)]
    if outer:
        return Outer(torch.cat([block.left for block in outer]), torch.cat([block.right for block in outer]))
    return Dense(torch.cat([block.rows for block in blocks if isinstance(block, Dense)]))


def _single(batch: Batch, index: int) -> Batch:
    where = torch.tensor([index % len(batch)], device=batch.targets.device)
    return Batch({name: value[where] for name, value in batch.inputs.items()}, batch.targets[where])


def _empty(parameters: list[nn.Parameter], count: int, columns: int) -> Tensor:
    return torch.empty(count, columns, dtype=parameters[0].dtype, device=parameters[0].device)
