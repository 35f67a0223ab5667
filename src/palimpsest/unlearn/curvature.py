"""Second-order pieces for unlearning: gradients per record, curvature products, and solves of (C + λI)·x = v.

C is one of three matrices at the model's weights, each a mean over records:
exact: the Hessian of the loss. ggn: the generalised Gauss–Newton matrix JᵀHJ, J the derivative of the outputs and H the
Hessian of the loss in the outputs; positive semi-definite. fisher: the empirical Fisher matrix, the mean of ggᵀ over gradients g of
single records; cheap, and in general not the Hessian. Vectors over weights have shape (p,), in the order of
`model.parameters()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter, trainable
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Batch, Examples
from palimpsest.unlearn._per_record import Gradients, Losses, by_layers, by_vmap, one_by_one

PASS = 256  # records of one forward and backward pass; the results do not depend on it
LAYER_RECORDS = 64  # records of one pass for gradients per record, layer by layer
SQUARED_RECORDS = 256  # records whose gradients are held at once while their squares are summed
VMAP_ENTRIES = 2**25  # gradient entries that one call of vmap holds (128 MiB in float32) …
VMAP_RECORDS = 64  # … and most records that it takes: more gained nothing
REFINEMENTS = 4  # at most so many steps of iterative refinement

Kind = Literal["exact", "ggn", "fisher"]


class Curvature:
    """The loss of a model around its weights. The model must be in evaluation mode, so that records do not mix; its dtype
    is the dtype of every result."""

    def __init__(self, model: nn.Module, task: Task, meter: Meter) -> None:
        self.task, self.meter = task, meter
        self.losses = Losses(model, task)
        self.parameters = trainable(model)
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self.dtype, self.device = self.parameters[0].dtype, self.parameters[0].device

    def parts(self, vector: Tensor) -> list[Tensor]:
        """The entries of a vector of shape (p,) that belong to each parameter, in the parameter's shape; views of it."""
        pieces = torch.split(vector, [parameter.numel() for parameter in self.parameters])
        return [piece.view(parameter.shape) for piece, parameter in zip(pieces, self.parameters, strict=True)]

    def gradient_sum(self, records: Examples) -> Tensor:
        """Sum of the loss gradients of all records, shape (p,)."""
        total = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for batch in self._batches(records, PASS):
            loss = self.losses(batch.inputs, batch.targets).sum()
            total += self._flat(self._gradients(loss))
            self.meter.count(len(batch))
        return total

    def gradients(self, records: Examples, *, vectorised: bool = True) -> Gradients:
        """The loss gradient of every record, in order.

        vectorised: many records a call; else one by one. Raises BadInput where the model allows no vectorised way.
        """
        count = len(records)
        if not (vectorised and self.task.vectorises):
            return one_by_one(self.losses, self.parameters, self._counted(records, 1), count)
        found = by_layers(self.losses, self.parameters, self._counted(records, LAYER_RECORDS), count)
        if found is None:
            size = max(1, min(VMAP_RECORDS, VMAP_ENTRIES // self.size))
            found = by_vmap(self.losses, self.parameters, self._counted(records, size), count)
        return found

    def importances(self, records: Examples, *, vectorised: bool = True) -> Tensor:
        """The mean over records of the squared entries of the loss gradient, i.e. the diagonal of the empirical Fisher
        matrix, shape (p,)."""
        total = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        most = SQUARED_RECORDS if self.task.vectorises else 1
        for start in range(0, len(records), most):
            part = records.take(list(range(start, min(start + most, len(records)))))
            found = self.gradients(part, vectorised=vectorised)
            total += found.squares(torch.ones_like(found.zeros))
        return total / len(records)

    def expected_importances(self, records: Examples, classes: int, *, vectorised: bool = True) -> Tensor:
        """As `importances`, with each record's label drawn from the model's own posterior, and the expectation over it taken
        exactly: the diagonal of the Fisher matrix, shape (p,). Costs `classes` gradients a record."""
        total = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        most = SQUARED_RECORDS if self.task.vectorises else 1
        for start in range(0, len(records), most):
            part = records.take(list(range(start, min(start + most, len(records)))))
            batches = self._batches(part, PASS)
            posterior = torch.cat([self.task.posterior(self.losses.model, batch) for batch in batches]).to(self.dtype)
            for label in range(classes):
                named = replace(part, targets=torch.full_like(part.targets, label))
                total += self.gradients(named, vectorised=vectorised).squares(posterior[:, label].contiguous())
        return total / len(records)

    def product(self, kind: Kind, records: Examples, vector: Tensor) -> Tensor:
        """C·vector, with C the mean over the records, shape (p,). Counts two gradient evaluations a batch."""
        parts = self.parts(vector)
        total = torch.zeros_like(vector)
        for batch in self._batches(records, PASS):
            step = {"exact": self._hessian, "ggn": self._gauss_newton, "fisher": self._fisher}[kind]
            total += self._flat(step(batch, parts))
            self.meter.count(2 * len(batch), 2)
        return total / len(records)

    def solve(
        self, kind: Kind, records: Examples, vector: Tensor, *, damping: float, tolerance: float, iterations: int
    ) -> Tensor:
        """(C + damping·I)⁻¹·vector by conjugate gradients, shape (p,); raises BadInput as those do."""

        def product(of: Tensor) -> Tensor:
            return self.product(kind, records, of) + damping * of

        return conjugate_gradients(product, vector, tolerance=tolerance, iterations=iterations)

    def _hessian(self, batch: Batch, parts: list[Tensor]) -> tuple[Tensor, ...]:
        slopes = self._gradients(self.losses(batch.inputs, batch.targets).sum(), create_graph=True)
        along = torch.stack([(slope * part).sum() for slope, part in zip(slopes, parts, strict=True)]).sum()
        return self._gradients(along)

    def _gauss_newton(self, batch: Batch, parts: list[Tensor]) -> tuple[Tensor, ...]:
        outputs = self.task.outputs(self.losses.model, batch)
        change = self._forward(outputs, parts)
        free = outputs.detach().requires_grad_()
        loss = self.task.loss_of(free, batch.targets, reduction="sum")
        (slope,) = torch.autograd.grad(loss, free, create_graph=True)
        (bent,) = torch.autograd.grad(slope, free, change)
        return self._gradients(outputs, bent)

    def _fisher(self, batch: Batch, parts: list[Tensor]) -> tuple[Tensor, ...]:
        losses = self.losses(batch.inputs, batch.targets)
        return self._gradients(losses, self._forward(losses, parts))

    def _forward(self, values: Tensor, parts: list[Tensor]) -> Tensor:
        """The derivative of `values` along `parts`, of the shape of `values`: the transpose of a transposed product, which
        asks nothing of the model but that it can be differentiated twice."""
        dummy = torch.zeros_like(values, requires_grad=True)
        back = self._gradients(values, dummy, create_graph=True)
        used = [(slope, part) for slope, part in zip(back, parts, strict=True) if slope.requires_grad]
        slopes, along = zip(*used, strict=True)
        (change,) = torch.autograd.grad(slopes, dummy, along, retain_graph=True)
        return change

    def _gradients(
        self, of: Tensor, weights: Tensor | None = None, *, create_graph: bool = False
    ) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            of, self.parameters, weights, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )

    def _batches(self, records: Examples, size: int) -> Iterator[Batch]:
        for batch in records.batches(size):
            inputs = {
                name: value.to(self.dtype) if value.is_floating_point() else value
                for name, value in batch.inputs.items()
            }
            yield Batch(inputs, batch.targets)

    def _counted(self, records: Examples, size: int) -> Iterator[Batch]:
        for batch in self._batches(records, size):
            yield batch
            self.meter.count(len(batch))

    def _flat(self, parts: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([part.reshape(-1) for part in parts]).detach()


def drawn(records: Examples, count: int | None, rng: Rng) -> Examples:
    """So many of the records, drawn at random without replacement; all of them, in order, for None."""
    return records if count is None else records.take(torch.randperm(len(records), generator=rng.torch())[:count])


def shift(model: nn.Module, step: Tensor) -> None:
    """θ ← θ + step, in place; step has shape (p,) and may be of another dtype than the model."""
    parameters = trainable(model)
    pieces = torch.split(step, [parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, pieces, strict=True):
            parameter.add_(part.view(parameter.shape).to(parameter.dtype))


def woodbury(gradients: Gradients, vector: Tensor, damping: float) -> Tensor:
    """x with (λI + GᵀG/n)·x = v, for the gradients G of n records and λ > 0, by the Woodbury identity:
    x = (v − Gᵀ(nλI + GGᵀ)⁻¹Gv)/λ.

    The n×n system is solved in float64, and steps of iterative refinement take out what the dtype of G lost. Relative to
    ‖x‖ the error is at most ‖residual‖/(λ‖x‖), as no eigenvalue is below λ. Raises BadInput where that stays above a
    thousandth: λ is then too small for the dtype.
    """
    count, tiny = len(gradients), torch.finfo(vector.dtype).tiny
    shifted = gradients.gram().double()
    shifted.diagonal().add_(count * damping)
    factor, broken = torch.linalg.cholesky_ex(shifted)
    bound, found, residual = float("inf"), torch.zeros_like(vector), vector
    for _ in range(1 + REFINEMENTS):
        inner = torch.cholesky_solve(gradients.times(residual).double().unsqueeze(1), factor).squeeze(1)
        found = found + (residual - gradients.transposed(inner.to(vector.dtype))) / damping
        residual = vector - damping * found - gradients.transposed(gradients.times(found)) / count
        bound = float(residual.norm() / (damping * found.norm()).clamp_min(tiny))
        if bound <= 1e-5:
            break
    if int(broken) or not bound <= 1e-3:
        got, do = f"a relative error of up to {bound:.1e}", "raise damping, or compute with double=true"
        raise BadInput("Fisher solve", got=got, expected="at most 1e-3", do=do)
    return found


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], vector: Tensor, *, tolerance: float, iterations: int
) -> Tensor:
    """x with A·x = v for a symmetric positive definite A, given its products. Stops at ‖v − A·x‖ ≤ tolerance·‖v‖.

    Raises BadInput where A shows a direction without positive curvature, and where `iterations` do not suffice.
    """
    found, left = torch.zeros_like(vector), vector.clone()
    direction, squared = left.clone(), left.dot(left)
    goal = tolerance * float(vector.norm())
    for _ in range(iterations):
        if float(squared) ** 0.5 <= goal:
            return found
        image = product(direction)
        bend = direction.dot(image)
        if not float(bend) > 0:
            got, do = f"curvature {float(bend):.1e} along one direction", "raise damping, or use curvature=ggn"
            raise BadInput("curvature solve", got=got, expected="positive curvature everywhere", do=do)
        step = squared / bend
        found, left = found + step * direction, left - step * image
        before, squared = squared, left.dot(left)
        direction = left + (squared / before) * direction
    if float(squared) ** 0.5 <= goal:
        return found
    got = f"a relative residual of {float(squared) ** 0.5 / float(vector.norm()):.1e} after {iterations} iterations"
    raise BadInput("curvature solve", got=got, expected=f"at most {tolerance}", do="raise damping or iterations")


def published_woodfisher(parts: Iterator[Gradients], vector: Tensor, count: int) -> Tensor:
    """What public code calls WoodFisher and runs for IU: **not** a solve. Kept to reproduce published rows.

    With g₀ the first gradient, its update of the "inverse Fisher times gradient" o ← o − (o·g)/(N + o·g)·o only rescales o
    and never lets g in, so that o stays a multiple of g₀ and the result is v + a·g₀ for some number a. `parts`: the
    gradients of the records in order. `count`: N in the denominators.
    """
    first: Tensor | None = None
    scale, amount = 1.0, 0.0  # o = scale·g₀ and k = v + amount·g₀
    for gradients in parts:
        skipped = int(first is None)  # the first record only starts o
        first = gradients.row(0) if first is None else first
        overlaps = zip(gradients.times(first).tolist(), gradients.times(vector).tolist(), strict=True)
        for with_first, with_vector in list(overlaps)[skipped:]:
            overlap = scale * with_first
            amount -= (with_vector + amount * with_first) / (count + overlap) * scale
            scale -= overlap / (count + overlap) * scale
    if first is None:
        raise BadInput("published WoodFisher", got="no gradients", expected="at least one")
    return vector + amount * first
