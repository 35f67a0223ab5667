"""The one engine that optimises inputs: signed projected gradient descent of a loss per record, in a ball and in a box."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from palimpsest.attack._convolutions import quickened
from palimpsest.attack._pace import Pace, checkpoints
from palimpsest.attack.folding import alike, folded, frozen, outputs
from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.types import Array

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs (b, …), aims (b, …)) → one loss per record, shape (b,), differentiable in the outputs."""

Stop = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(outputs, aims, loss (b,)) → which records have reached what the attack wants, Boolean, shape (b,)."""

Layout = Literal["probe", "contiguous", "channels_last"]
StepRule = Literal["constant", "decaying", "cosine", "automatic"]


@dataclass(frozen=True)
class Found:
    """inputs: the best iterate of each record, (n, …). loss: its loss, (n,). reached: whether `stop` held for it, (n,).
    steps: gradient steps that the record took over all restarts, (n,). evaluations: their sum, i.e. the forward-backward
    passes of one record that were executed."""

    inputs: Float[Tensor, "n ..."]
    loss: Float[Tensor, " n"]
    reached: Bool[Tensor, " n"]
    steps: Tensor
    evaluations: int


@dataclass(frozen=True)
class Prepared:
    """A private model ready for many passes: frozen, folded, in the memory layout that was faster for these shapes."""

    model: nn.Module
    layout: Literal["contiguous", "channels_last"]

    def arranged(self, values: Tensor) -> Tensor:
        if self.layout == "channels_last" and values.dim() == 4:
            return values.contiguous(memory_format=torch.channels_last)
        return values.contiguous()


@dataclass
class _Active:
    """The records being worked on; the first axis of every tensor is the slot. ages: gradient steps taken, on the host."""

    rows: Tensor
    ages: Array
    now: Tensor
    lower: Tensor
    upper: Tensor
    radius: Tensor
    aims: Tensor
    best: Tensor
    loss: Tensor
    reached: Tensor
    velocity: Tensor | None = None
    pace: Pace | None = None
    sides: Tensor | None = None

    def keep(self, slots: Tensor, arranged: Callable[[Tensor], Tensor]) -> None:
        self.ages = self.ages[slots.cpu().numpy()]
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, arranged(value[slots]))
        if self.pace is not None:
            self.pace.keep(slots, arranged)

    def add(self, other: _Active, arranged: Callable[[Tensor], Tensor]) -> None:
        self.ages = np.concatenate([self.ages, other.ages])
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, arranged(torch.cat([value, getattr(other, name)])))
        if self.pace is not None and other.pace is not None:
            self.pace.add(other.pace, arranged)


def search(
    model: nn.Module | Prepared,
    inputs: Float[Tensor, "n ..."],
    aims: Tensor,
    loss: Loss,
    *,
    low: Tensor,
    high: Tensor,
    epsilon: float | Tensor,
    step_size: float,
    steps: int,
    rng: Rng,
    restarts: int = 1,
    start: Literal["random", "record"] = "random",
    stop: Stop | None = None,
    step_rule: StepRule = "constant",
    momentum: float = 0.0,
    batch_size: int = 128,
    check_every: int | None = None,
    layout: Layout = "probe",
    sides: Tensor | None = None,
) -> Found:
    """For each record, an input near it at which the loss is low (Madry et al. 2017's PGD, descending).

    inputs: the records, float. aims: what `loss` compares outputs with, first axis the record. low, high: the box, broadcast
    over one record. epsilon: radius of the L∞ ball in units of `high − low`, one for all or one per record; inf for none.
    step_size: in the same units. start: a uniform draw from the ball and box, or the record itself.
    stop: records for which it holds leave (never, if None); it is looked at every `check_every` steps (1 on a CPU, 5
    on a GPU, where looking costs a wait), and freed slots are filled from the queue, so batches stay full.
    sides: what the model takes as its second argument, first axis the record, such as masks; it is not changed. Such a model is
    neither folded nor rearranged in memory.
    step_rule: "constant", the paper's; "decaying" starts with steps of half the radius and halves them down to `step_size`;
    "cosine" lets them fall from half the radius to nothing; "automatic" is that of Croce & Hein 2020 (APGD, Algorithm 1), which
    starts at twice the radius, halves a record's steps where they gain too little, and goes on from its best point. momentum: of
    the gradient, scaled to a mean magnitude of 1, in [0, 1) (Dong et al. 2018); 0 for none.

    Of all iterates of all restarts, one that `stop` holds for beats one that it does not hold for; else the lower loss wins.
    The result keeps |δ| ≤ ε (high − low) and the box exactly, in the dtype of `inputs`. Randomness belongs to rows, not to
    batches, so the batch size changes results by rounding only.

    Guarantees nothing about the global minimum: the problem is not convex. Raises BadInput for no records, for settings out of
    range and for records that lie farther outside the box than ε.
    """
    _check(step_size, steps, restarts, batch_size, momentum)
    if not len(inputs):
        raise BadInput("inputs", got="no records", expected="at least one")
    if sides is not None and len(sides) != len(inputs):
        raise BadInput("sides", got=f"{len(sides)} of them", expected=f"{len(inputs)}, one per record")
    if isinstance(model, Prepared):
        ready = model
    else:
        ready = prepare(model, inputs, layout) if sides is None else Prepared(frozen(model), "contiguous")
    radius = torch.as_tensor(epsilon, dtype=torch.float64, device=inputs.device).expand(len(inputs)).contiguous()
    if not bool((radius >= 0).all()):
        raise BadInput("epsilon", got=float(radius.min()), expected="a radius of at least 0")
    every = check_every or (5 if inputs.is_cuda else 1)
    job = _Job(
        ready,
        inputs,
        aims,
        loss,
        low,
        high,
        radius,
        step_size,
        steps,
        stop,
        step_rule,
        momentum,
        batch_size,
        every,
        sides,
    )
    for restart in range(restarts):
        job.run(None if start == "record" else rng.child("restart", restart))
    return Found(job.best, job.loss, job.reached, job.taken, int(job.taken.sum()))


class _Job:
    """One search: what is asked, and the best found so far for each row."""

    def __init__(
        self,
        ready: Prepared,
        inputs: Tensor,
        aims: Tensor,
        loss: Loss,
        low: Tensor,
        high: Tensor,
        epsilon: Tensor,
        step_size: float,
        steps: int,
        stop: Stop | None,
        step_rule: StepRule,
        momentum: float,
        batch_size: int,
        check_every: int,
        sides: Tensor | None = None,
    ) -> None:
        self.sides = sides
        self.ready, self.inputs, self.aims, self.of = ready, inputs, aims, loss
        self.low, self.high = (edge.to(inputs) for edge in (low, high))
        self.width = (self.high.double() - self.low.double()).to(inputs.dtype)
        self.epsilon, self.step_size, self.steps = epsilon, step_size, steps
        self.stop, self.step_rule, self.batch_size, self.check_every = stop, step_rule, batch_size, check_every
        self.momentum, self.checks = momentum, checkpoints(steps)
        n, device = len(inputs), inputs.device
        self.best = inputs.clone()
        self.loss = torch.full((n,), torch.inf, dtype=inputs.dtype, device=device)
        self.reached = torch.zeros(n, dtype=torch.bool, device=device)
        self.taken = torch.zeros(n, dtype=torch.int64, device=device)

    def run(self, rng: Rng | None) -> None:
        """One restart of every row that is not there yet."""
        noise = None
        if rng is not None:
            noise = torch.rand(self.inputs.shape, generator=rng.torch()).to(self.inputs)
        queue = (~self.reached).nonzero().flatten()
        active, queue = self._admit(queue[: self.batch_size], noise), queue[self.batch_size :]
        while len(active.rows):
            burst = min(self.check_every, self.steps - int(active.ages.max()))
            for _ in range(burst):
                self._step(active)
            over = active.ages >= self.steps
            # Without `stop`, ages alone decide, and the host knows them: nothing waits for the device.
            if over.any() or (self.stop is not None and bool(active.reached.any())):
                self._release(active, torch.from_numpy(over).to(active.rows.device))
                free = self.batch_size - len(active.rows)
                if free and len(queue):
                    active.add(self._admit(queue[:free], noise), self.ready.arranged)
                    queue = queue[free:]

    def _admit(self, rows: Tensor, noise: Tensor | None) -> _Active:
        """Rows taken from the queue, at the point they start from."""
        clean, epsilon = self.inputs[rows], self.epsilon[rows]
        lower, upper = ball(clean, epsilon, self.low, self.high)
        now = clean if noise is None else lower + noise[rows] * (upper - lower)
        now = torch.clamp(now, lower, upper)
        wide = epsilon.clamp(max=1.0).to(clean.dtype).view(-1, *([1] * (clean.dim() - 1)))
        place = self.ready.arranged
        return _Active(
            rows,
            np.zeros(len(rows), dtype=np.int64),
            place(now),
            place(lower),
            place(upper),
            wide,
            self.aims[rows],
            place(now).clone(),
            torch.full((len(rows),), torch.inf, dtype=clean.dtype, device=clean.device),
            torch.zeros(len(rows), dtype=torch.bool, device=clean.device),
            place(torch.zeros_like(now)) if self.momentum else None,
            Pace.begin(place(now).clone(), 2 * wide) if self.step_rule == "automatic" else None,
            None if self.sides is None else self.sides[rows],
        )

    def _answers(self, points: Tensor, sides: Tensor | None) -> Tensor:
        if sides is None:
            return outputs(self.ready.model, points)
        answer: Tensor = self.ready.model(points, sides)
        return answer

    def _step(self, active: _Active) -> None:
        """One forward-backward pass and one update of every active record."""
        point = active.now.requires_grad_()
        answer = self._answers(point, active.sides)
        loss = self.of(answer, active.aims)
        (slope,) = torch.autograd.grad(loss.sum(), point)
        point = point.detach()
        self._note(active, point, answer.detach(), loss.detach())
        if active.velocity is not None:
            size = slope.abs().flatten(1).mean(1).clamp_min(1e-30).view(-1, *([1] * (slope.dim() - 1)))
            active.velocity = active.velocity.mul(self.momentum).add(slope / size)
            slope = active.velocity.clone()
        if active.pace is not None:
            near = active.best, active.loss, active.lower, active.upper
            active.now = active.pace.step(
                point, slope.sign_(), loss.detach(), active.ages, self.checks[active.ages], self.width, *near
            )
        else:
            move = slope.sign_().mul_(self._stride(active))
            active.now = torch.clamp(torch.sub(point, move, out=move), active.lower, active.upper)
        active.ages += 1

    def _stride(self, active: _Active) -> Tensor:
        if self.step_rule == "constant":
            return self.step_size * self.width
        if self.step_rule == "cosine":
            left = torch.from_numpy(0.25 * (1 + np.cos(np.pi * active.ages / self.steps))).to(active.radius)
            return active.radius * left.view_as(active.radius) * self.width
        shrink = torch.from_numpy(0.5 ** (1.0 + active.ages)).to(active.radius).view_as(active.radius)
        return torch.clamp(active.radius * shrink, min=self.step_size) * self.width

    def _note(self, active: _Active, point: Tensor, answer: Tensor, loss: Tensor) -> None:
        """Remembers the iterate where it is better than the best so far."""
        better = loss < active.loss
        if self.stop is not None:
            reached = self.stop(answer, active.aims, loss)
            better = torch.where(reached == active.reached, better, reached)
            active.reached = active.reached | reached
        active.loss = torch.where(better, loss, active.loss)
        active.best = torch.where(better.view(-1, *([1] * (point.dim() - 1))), point, active.best)

    @torch.no_grad()
    def _release(self, active: _Active, over: Tensor) -> None:
        """Looks at the last iterate of those that ran out of steps, writes the leaving records' best, and drops them."""
        if bool(over.all()):  # the usual case: the whole batch is through
            answer = self._answers(active.now, active.sides)
            self._note(active, active.now, answer, self.of(answer, active.aims))
        elif bool(over.any()):
            last = replace(active, velocity=None, pace=None)  # what is kept of them belongs to `active`
            last.keep(over.nonzero().flatten(), self.ready.arranged)
            answer = self._answers(last.now, last.sides)
            self._note(last, last.now, answer, self.of(answer, last.aims))
            for name in ("best", "loss", "reached"):
                getattr(active, name)[over] = getattr(last, name)
        leaves = over | active.reached
        rows, best, loss, reached = (
            values[leaves] for values in (active.rows, active.best, active.loss, active.reached)
        )
        ages = torch.from_numpy(active.ages).to(rows.device)[leaves]
        known = self.loss[rows]
        better = torch.where(reached == self.reached[rows], loss < known, reached)
        self.best[rows[better]] = best[better]
        self.loss[rows[better]] = loss[better]
        self.reached[rows] |= reached
        self.taken[rows] += ages
        active.keep((~leaves).nonzero().flatten(), self.ready.arranged)


def ball(
    inputs: Float[Tensor, "n ..."], epsilon: Float[Tensor, " n"], low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Lowest and highest values allowed: |value − input| ≤ ε (high − low), taken in float64, and low ≤ value ≤ high."""
    exact = inputs.double()
    radius = epsilon.double().view(-1, *([1] * (inputs.dim() - 1))) * (high.double() - low.double())
    radius = torch.nan_to_num(radius, nan=0.0)  # no ball (inf) around a feature that never varies (width 0)
    lower, upper = (exact - radius).to(inputs.dtype), (exact + radius).to(inputs.dtype)
    inf = torch.full_like(lower, torch.inf)
    lower = torch.where(exact - lower.double() > radius, torch.nextafter(lower, inf), lower)  # rounded outwards
    upper = torch.where(upper.double() - exact > radius, torch.nextafter(upper, -inf), upper)
    lower, upper = torch.maximum(lower, low.to(lower)), torch.minimum(upper, high.to(upper))
    if bool((lower > upper).any()):
        raise BadInput("inputs", got="a value farther outside the domain than ε", expected="records within the domain")
    return lower, upper


def prepare(model: nn.Module, sample: Tensor, layout: Layout = "probe") -> Prepared:
    """The model as `search` uses it. sample: records as they will come; up to 32 of them serve the timed trials.

    Where a layout is fixed, or float32 on a CPU is not what is used, no convolution is replaced (see `_convolutions.py`).
    """
    sample = sample[:32].detach()
    short = folded(model, sample[:8])
    chosen = _faster(short, sample[:16]) if layout == "probe" else layout
    kind = torch.channels_last if chosen == "channels_last" else torch.contiguous_format
    short.to(memory_format=kind)  # type: ignore[call-overload]
    if layout == "probe" and chosen == "channels_last":
        quick = quickened(short, sample)
        short = quick if alike(short, quick, sample[:8]) else short
    return Prepared(short, chosen)


_CHOSEN: dict[Any, Literal["contiguous", "channels_last"]] = {}


def _faster(model: nn.Module, sample: Tensor) -> Literal["contiguous", "channels_last"]:
    """channels_last, unless the other is clearly faster: a close call must not make two runs differ by rounding.

    Remembered per architecture and shape, so that a subject and its controls run alike."""
    shapes = tuple((name, tuple(value.shape)) for name, value in model.state_dict().items())
    if sample.dim() != 4 or not any(len(shape) == 4 for _, shape in shapes):
        return "contiguous"
    key = (shapes, tuple(sample.shape), str(sample.device), torch.get_num_threads())
    if key not in _CHOSEN:
        seconds = {}
        for name, kind in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
            trial = frozen(model).to(memory_format=kind)  # type: ignore[call-overload]
            seconds[name] = _seconds(trial, sample.contiguous(memory_format=kind))
        _CHOSEN[key] = "contiguous" if seconds["contiguous"] < 0.9 * seconds["channels_last"] else "channels_last"
    return _CHOSEN[key]


def _seconds(model: nn.Module, sample: Tensor, repeats: int = 2) -> float:
    """Least time of a forward-backward pass to the input, after one to warm up; on a CPU processor time, into which other
    programs' load does not enter."""
    clock = time.perf_counter if sample.is_cuda else time.process_time
    times = []
    for _ in range(repeats + 1):
        if sample.is_cuda:
            torch.cuda.synchronize()
        begin = clock()
        point = sample.clone().requires_grad_()
        torch.autograd.grad(outputs(model, point).sum(), point)
        if sample.is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - begin)
    return min(times[1:])


def _check(step_size: float, steps: int, restarts: int, batch_size: int, momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise BadInput("momentum", got=momentum, expected="a number from 0 to below 1")
    for name, value in (("steps", steps), ("restarts", restarts), ("batch_size", batch_size)):
        if value < 1:
            raise BadInput(name, got=value, expected="a whole number of at least 1")
    if not 0 < step_size < float("inf"):
        raise BadInput("step_size", got=step_size, expected="a number above 0, in units of the domain")
