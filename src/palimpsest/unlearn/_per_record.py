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
from torch.nn.grad import conv2d_weight

from palimpsest.errors import BadInput
from palimpsest.task import Task
from palimpsest.types import Batch

STRIP = 128  # rows of the Gram matrix that are computed at once
BLOCK_ENTRIES = 2**24  # entries of the rows that are built at once from their factors (64 MiB in float32)
GROUPED_PLACES = 64  # positions of a convolution's output from which one group a record is the faster way (measured)


class Losses(nn.Module):
    """A model and its task as one module: inputs and targets in, the loss of each record out, shape (n,)."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, inputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        if not self.task.vectorises:  # then the loss may be more than one of the outputs
            return self.task.loss(self.model, Batch(inputs, targets), reduction="none")
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

    def squares(self, weights: Tensor) -> Tensor:
        return self.rows.square().T @ weights

    def row(self, index: int) -> Tensor:
        return self.rows[index]


@dataclass(frozen=True)
class Product:
    """Columns of G whose row i is the matrix product left[i]·right[i]ᵀ, kept as its factors: shapes (n, a, places) and
    (n, b, places), a·b columns. Smaller than the rows where there are few places."""

    left: Tensor
    right: Tensor

    @property
    def columns(self) -> int:
        return self.left.shape[1] * self.right.shape[1]

    def add_gram(self, total: Tensor) -> None:
        if self.left.shape[2] == 1:
            left, right = self.left.squeeze(2), self.right.squeeze(2)
            total += (left @ left.T) * (right @ right.T)
            return
        count, across = len(self.left), self.right.transpose(1, 2)
        parts = torch.split(self.left, max(1, BLOCK_ENTRIES // (count * across.shape[2])), 1)
        space = self.left.new_empty(parts[0].shape[1] * count * across.shape[2])  # used again for each part
        for part in parts:
            rows = space[: part.shape[1] * count * across.shape[2]].view(count, part.shape[1], -1)
            Dense(torch.bmm(part, across, out=rows).reshape(count, -1)).add_gram(total)

    def times(self, vector: Tensor) -> Tensor:
        return (self.left * (vector.view(self.left.shape[1], -1) @ self.right)).sum((1, 2))

    def transposed(self, weights: Tensor) -> Tensor:
        weighted: Tensor = torch.tensordot(self.left * weights.view(-1, 1, 1), self.right, ([0, 2], [0, 2]))
        return weighted.reshape(-1)

    def squares(self, weights: Tensor) -> Tensor:
        if self.left.shape[2] == 1:
            return ((self.left.squeeze(2).square() * weights[:, None]).T @ self.right.squeeze(2).square()).reshape(-1)
        total = self.left.new_zeros(self.columns)
        size = max(1, BLOCK_ENTRIES // self.columns)
        for left, right, part in zip(*(torch.split(x, size) for x in (self.left, self.right, weights)), strict=True):
            total += Dense((left @ right.transpose(1, 2)).flatten(1)).squares(part)
        return total

    def row(self, index: int) -> Tensor:
        return (self.left[index] @ self.right[index].T).reshape(-1)


@dataclass(frozen=True)
class Gradients:
    """G, shape (count, p), in blocks of columns; `zeros` is a zero of shape (count,) of its dtype and device."""

    blocks: tuple[Dense | Product, ...]
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

    def squares(self, weights: Tensor) -> Tensor:
        """Σ weights[i]·G[i]², entry by entry, shape (p,)."""
        return torch.cat([block.squares(weights) for block in self.blocks])

    def row(self, index: int) -> Tensor:
        """The gradient of one record, shape (p,)."""
        return torch.cat([block.row(index) for block in self.blocks])


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
    moving = {id(parameter) for parameter in parameters}
    weights = {name: p.detach() for name, p in losses.named_parameters() if id(p) in moving}
    buffers = dict(losses.named_buffers())
    buffers |= {name: p.detach() for name, p in losses.named_parameters() if id(p) not in moving}

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

    made = {id(parameter): _Columns(parameter, count) for parameter in parameters}
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
                _fill(module, given, slope, made)
            ends = [*ends[:1], _single(batch, -1)] if ends else [_single(batch, 0), _single(batch, -1)]
    finally:
        for hook in hooks:
            hook.remove()
    zeros = parameters[0].new_zeros(count).detach()
    gradients = Gradients(tuple(made[id(parameter)].block() for parameter in parameters), zeros)
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


class _Columns:
    """One parameter's columns of G, filled batch by batch."""

    def __init__(self, parameter: nn.Parameter, count: int) -> None:
        self.parameter, self.count, self.filled = parameter, count, 0
        self.rows: Tensor | None = None
        self.factors: list[tuple[Tensor, Tensor]] = []

    def next(self, records: int) -> Tensor:
        """The rows of the next so many records, to be written to, shape (records, *parameter.shape)."""
        if self.rows is None:
            self.rows = self.parameter.new_empty(self.count, self.parameter.numel()).detach()
        self.filled += records
        return self.rows[self.filled - records : self.filled].view(records, *self.parameter.shape)

    def add_product(self, left: Tensor, right: Tensor) -> None:
        """The rows left[i]·right[i]ᵀ, as factors where those are smaller; shapes (records, a, places), (records, b, places)."""
        if fewer_as_factors(left.shape[1], right.shape[1], left.shape[2]):
            self.factors.append((left, right))
        else:
            torch.bmm(left, right.transpose(1, 2), out=self.next(len(left)).view(len(left), left.shape[1], -1))

    def block(self) -> Dense | Product:
        if self.rows is not None:
            return Dense(self.rows)
        left, right = zip(*self.factors, strict=True)
        return Product(torch.cat(left), torch.cat(right))


def fewer_as_factors(left: int, right: int, places: int) -> bool:
    return places * (left + right) < left * right or places == 1


@torch.no_grad()
def _fill(module: nn.Module, given: Tensor, slope: Tensor, made: Mapping[int, _Columns]) -> None:
    """Writes a layer's rows of one batch, from the layer's input and the slope of the loss in its output."""
    count = len(given)
    weight, bias = (made.get(id(getattr(module, name))) for name in ("weight", "bias"))
    if isinstance(module, nn.Linear) and weight is not None:
        slope = slope.reshape(count, -1, module.out_features).transpose(1, 2)
        weight.add_product(slope, given.reshape(count, -1, module.in_features).transpose(1, 2))
    elif isinstance(module, nn.Conv2d) and weight is not None:
        _fill_convolution(module, given, slope, weight)
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and weight is not None:
        mean, variance = cast(Tensor, module.running_mean), cast(Tensor, module.running_var)
        over = (1, -1, *([1] * (given.dim() - 2)))
        scaled = (given - mean.view(over)) * (variance + module.eps).rsqrt().view(over)
        torch.sum((slope * scaled).reshape(count, len(mean), -1), 2, out=weight.next(count))
    if bias is not None:
        torch.sum(slope.reshape(count, bias.parameter.numel(), -1), 2, out=bias.next(count))


def _fill_convolution(module: nn.Conv2d, given: Tensor, slope: Tensor, weight: _Columns) -> None:
    """A product over patches of the input; for large images as a convolution with one group a record, the faster way."""
    count, shape = len(given), weight.parameter.shape
    padding, stride, dilation = cast(Any, module.padding), module.stride, module.dilation
    places = slope.shape[2] * slope.shape[3]
    if places < GROUPED_PLACES or fewer_as_factors(shape[0], shape[1:].numel(), places):
        patches = F.unfold(given, module.kernel_size, dilation, padding, stride)
        weight.add_product(slope.reshape(count, shape[0], places), patches)
        return
    inputs, outputs = given.reshape(1, -1, *given.shape[2:]), slope.reshape(1, -1, *slope.shape[2:])
    stacked = (count * shape[0], *shape[1:])
    found = conv2d_weight(inputs, stacked, outputs, stride, padding, dilation, count)  # type: ignore[no-untyped-call]
    weight.next(count).copy_(found.view(count, *shape))


def _single(batch: Batch, index: int) -> Batch:
    where = torch.tensor([index % len(batch)], device=batch.targets.device)
    return Batch({name: value[where] for name, value in batch.inputs.items()}, batch.targets[where])


def _empty(parameters: list[nn.Parameter], count: int, columns: int) -> Tensor:
    return torch.empty(count, columns, dtype=parameters[0].dtype, device=parameters[0].device)
