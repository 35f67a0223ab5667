"""Probing samples: inputs, made by queries alone, which a model assigns to a wanted class with confidence close to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palimpsest.attack.residual.square import HALVED
from palimpsest.errors import BadInput
from palimpsest.rng import Rng

Answer = Callable[[Tensor], Tensor]
"""Inputs (n, *shape) → posteriors (n, k), or labels (n,) where the model shows no more. No gradient is taken of it."""

HOPELESS = 745.0
"""Loss where the wanted class is answered as 0: no less than −log of any positive float."""


@dataclass(frozen=True)
class Probes:
    """inputs: in the domain. classes: the wanted class of each. confidence: the answer for that class on exactly these inputs.
    queries: records asked in all. accepted: whether the confidence is at least the threshold."""

    inputs: Float[Tensor, "p ..."]
    classes: Int[Tensor, " p"]
    confidence: Float[Tensor, " p"]
    queries: int
    accepted: Bool[Tensor, " p"]


def zeroth_order(
    answer: Answer,
    shape: tuple[int, ...],
    classes: Int[Tensor, " p"],
    *,
    domain: tuple[Tensor, Tensor],
    rng: Rng,
    threshold: float = 0.999,
    iterations: int = 20,
    tries: int = 10,
    coordinates: int = 1024,
    step: float = 1e-4,
    lr: float = 0.1,
    late_lr: float = 0.02,
    late_from: float = 0.9,
    middle: float = 0.0,
    spread: float = 1.0,
    at_once: int = 1024,
) -> Probes:
    """Probes by zeroth order optimisation (Chen et al. 2017, ZOO), as the inversion paper makes them (§3.2.2, §5.2).

    An iteration draws `coordinates` coordinates of a probe without replacement (all, if it has no more), takes the symmetric
    difference quotient of −log p[wanted] along each, and makes a step of ADAM, whose moments and count of steps belong to the
    coordinate. A probe stops at confidence ≥ `threshold`. A try ends after `iterations`, or where a tenth of them lowered the loss
    by less than 1 in 10,000; the next goes on from the most confident point so far, with ADAM new. The start asks 1 record, an
    iteration 2·min(coordinates, values) + 1.

    shape: one record's. classes: the wanted class of each probe, from 0, a class as often as probes of it are wanted. domain:
    lowest and highest values, broadcast over one record; inputs have their dtype and device. step, lr, late_lr, spread: in units
    of high − low. late_lr holds in a try that begins at a confidence above late_from. at_once: records of one call of `answer`,
    and the bound on memory.

    Settings are the paper's and its code's; the start is `middle` + `spread` times normal noise, in units of high − low above low,
    clipped. Deviations: the paper's Eq. 8 is a margin of logits, which a user does not see, and its code takes this loss too; a
    point beyond the domain is asked at its edge, and the quotient is over the distance that is left; the code looks for the
    threshold between tries only, goes on with new noise until it has its probes, and at each iteration adds all steps of the try
    so far, each cut at 0 from below, where ZOO adds one.

    Precision: −log p_t is taken in float64 as log(1 + Σ_{i≠t} p_i / p_t), so float32 answers lose no digits as p_t → 1. What
    limits the quotient is rounding inside the model (1e-6 in its logits is 0.005 in a slope, at the default step) and that of
    a service which prints few decimals: at 4 of them the default step sees almost nothing. Where p_t is answered as 0 there is
    no slope.

    Guarantees no acceptance: a class that the model does not answer with such confidence comes back as not accepted. Nothing
    keeps a probe near real data. A probe depends on `rng`, its place in `classes` and the answers; the batches change it by the
    rounding of the answers only. Raises BadInput for settings out of range, a domain that is none, a class that the answers do
    not have, and answers that are no posteriors.
    """
    counts(iterations=iterations, coordinates=coordinates)
    above_zero(step=step, lr=lr, late_lr=late_lr)
    box = BlackBox(answer, shape, domain, at_once)
    search, size = _Search(box, classes, threshold, middle, spread, tries, rng), math.prod(shape)
    looked = iterations // 10 or iterations
    for draws in search.tries(afresh=False):
        state = torch.zeros(3, len(classes), size, dtype=torch.float64, device=box.low.device)
        rates = torch.where(search.top > late_from, late_lr, lr)
        falls, before = torch.ones_like(search.wanted, dtype=torch.bool), torch.full_like(search.loss, torch.inf)
        for turn in range(iterations):
            rows = search.open(falls)
            if not len(rows):
                break
            drawn = [torch.randperm(size, generator=draws[row])[:coordinates] for row in rows.tolist()]
            where, now = torch.stack(drawn).to(rows.device), search.now[rows]
            slope = slopes(box, now, search.wanted[rows], where, step)
            mean, square, age = state[:, rows[:, None], where]
            mean, square, age = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2, age + 1
            state[:, rows[:, None], where] = torch.stack([mean, square, age])
            move = rates[rows, None] * mean / (1 - 0.9**age) / ((square / (1 - 0.999**age)).sqrt() + 1e-8)
            moved = now.flatten(1).double().scatter_add(1, where, -move * box.width.flatten()[where])
            search.ask(rows, box.kept(moved.view_as(now)), always=True)
            if turn % looked == 0:
                falls[rows], before[rows] = search.loss[rows] <= 0.9999 * before[rows], search.loss[rows]
    return search.found()


def random_squares(
    answer: Answer,
    shape: tuple[int, ...],
    classes: Int[Tensor, " p"],
    *,
    domain: tuple[Tensor, Tensor],
    rng: Rng,
    threshold: float = 0.999,
    changes: int = 2000,
    tries: int = 10,
    area: float = 0.8,
    middle: float = 0.5,
    spread: float = 0.25,
    at_once: int = 1024,
) -> Probes:
    """Probes by random search: one random square of one random colour a query, kept where the confidence does not fall.

    After the Square attack (Andriushchenko et al. 2020), whose schedule of areas it has: `area` of the image at first, halved
    after the shares `HALVED` of the `changes`. Ours: no ball around a record, so a square takes any colour of the domain (one
    value a channel; features are an image of one row, a square a run of them at one level between low and high), and ties are
    kept, so that a search is not stuck where the answers are rounded. Each try is from fresh noise, and the most confident point of
    all is kept. A start and a change ask 1 record each.

    It needs no small differences, so it works on rounded answers too. Queries per accepted probe, against `zeroth_order` at its
    defaults: 160 against 3,400 on digits (ConvNet of width 8, two probes a class, all accepted).

    Arguments, the precision of the comparison, what is guaranteed and what is raised are as for `zeroth_order`; further, a shape
    has 1 to 3 axes.
    """
    counts(changes=changes)
    image_like(shape)
    if not 0 < area <= 1:
        raise BadInput("area", got=area, expected="a share of the image above 0 and at most 1")
    box = BlackBox(answer, shape, domain, at_once)
    search = _Search(box, classes, threshold, middle, spread, tries, rng)
    channels, height, width = image = (1,) * (3 - len(shape)) + tuple(shape)
    for draws in search.tries(afresh=True):
        chance = {row: torch.rand(changes, 2 + channels, generator=draw) for row, draw in draws.items()}
        for turn in range(changes):
            rows = search.open()
            if not len(rows):
                break
            drawn = torch.stack([chance[row][turn] for row in rows.tolist()]).to(rows.device)
            place, colour = drawn[:, :2], drawn[:, 2:]
            side = round(math.sqrt(area * 0.5 ** sum(turn >= part * changes for part in HALVED) * height * width))
            down, across = (_run(place[:, axis], max(1, side), size) for axis, size in enumerate((height, width)))
            inside = (down[:, None, :, None] & across[:, None, None, :]).expand(-1, *image).reshape(-1, *shape)
            level = colour[:, :, None, None].expand(-1, *image).reshape(-1, *shape)
            search.ask(rows, torch.where(inside, box.at(level), search.now[rows]), always=False)
    return search.found()


class BlackBox:
    """The one way to the model: it batches, counts every record asked, checks the answers, and knows the domain. No gradient.

    low, high: the domain's edges, of the records' shape. width: high − low in float64. queries: records asked so far.
    """

    def __init__(self, answer: Answer, shape: tuple[int, ...], domain: tuple[Tensor, Tensor], at_once: int) -> None:
        counts(at_once=at_once)
        try:
            low, high = (edge.expand(shape) for edge in domain)
        except RuntimeError as error:
            got = f"edges of shapes {', '.join(str(tuple(edge.shape)) for edge in domain)}"
            raise BadInput("domain", got=got, expected=f"edges that fit records of shape {tuple(shape)}") from error
        known = low.dtype in (torch.float32, torch.float64)
        if not (known and bool((low <= high).all()) and bool((high - low).isfinite().all())):
            raise BadInput("domain", got=domain, expected="finite floats of 32 or 64 bits, the lowest first")
        self.answer, self.at_once, self.queries = answer, at_once, 0
        self.low, self.high, self.width = low, high.to(low), high.to(low).double() - low.double()

    def at(self, level: Tensor) -> Tensor:
        """Inputs at these levels between low (0) and high (1), clipped to the domain."""
        return self.kept(self.low.double() + level.double() * self.width)

    def kept(self, values: Tensor) -> Tensor:
        return torch.clamp(values.to(self.low), self.low, self.high)

    def answers(self, make: Callable[[slice], Tensor], n: int) -> Iterator[tuple[slice, Tensor]]:
        """Answers to n records, which `make` makes a batch at a time."""
        for start in range(0, n, self.at_once):
            part = slice(start, min(start + self.at_once, n))
            inputs = make(part)
            with torch.no_grad():
                answers = self.answer(inputs)
            self.queries += len(inputs)
            if answers.shape[:1] != inputs.shape[:1]:
                got = f"shape {tuple(answers.shape)} for {len(inputs)} records"
                raise BadInput("answer", got=got, expected="one answer for each record")
            yield part, answers.to(self.low.device)

    def posterior(self, make: Callable[[slice], Tensor], wanted: Tensor) -> tuple[Tensor, Tensor]:
        """−log p[wanted] and p[wanted] of len(wanted) records, in float64."""
        loss, confidence = torch.empty(2, len(wanted), dtype=torch.float64, device=wanted.device)
        for part, answers in self.answers(make, len(wanted)):
            values, column = answers.double(), wanted[part, None]
            if values.dim() != 2 or not bool(((values > -1e-6) & (values < 1.001)).all()):
                got = f"shape {tuple(values.shape)}, values {values.min():.3g} to {values.max():.3g}"
                raise BadInput("answer", got=got, expected="posteriors of shape (n, k), in [0, 1]")
            if int(column.max()) >= values.shape[1]:
                raise BadInput("classes", got=int(column.max()), expected=f"numbers from 0 to {values.shape[1] - 1}")
            confidence[part] = right = values.gather(1, column)[:, 0]
            rest = values.scatter(1, column, 0.0).sum(1)
            loss[part] = torch.where(right > 0, torch.log1p(rest / right), HOPELESS)
        return loss, confidence


class _Search:
    """All probes of a call, the first axis of every tensor the probe.

    now, loss: where each is. best, top: the most confident point of each so far, and its confidence.
    """

    def __init__(
        self,
        box: BlackBox,
        classes: Tensor,
        threshold: float,
        middle: float,
        spread: float,
        tries: int,
        rng: Rng,
    ) -> None:
        counts(tries=tries)
        above_zero(spread=spread)
        if not 0 < threshold <= 1:
            raise BadInput("threshold", got=threshold, expected="a confidence above 0 and at most 1")
        if not math.isfinite(middle):
            raise BadInput("middle", got=middle, expected="a finite number")
        self.box, self.threshold, self.middle, self.spread = box, threshold, middle, spread
        self.most, self.rng = tries, rng
        self.wanted = checked(classes).to(box.low.device)
        self.now = box.low.expand(len(classes), *box.low.shape).clone()
        self.loss, self.top = torch.full((2, len(classes)), -1.0).to(box.width)
        self.best = self.now.clone()

    def tries(self, *, afresh: bool) -> Iterator[dict[int, torch.Generator]]:
        """Puts probes below the threshold on noise, or later ones on their best, and gives each its randomness, `tries` times."""
        for turn in range(self.most):
            rows = self.open()
            if not len(rows):
                return
            draws = {row: self.rng.child("probe", row, "try", turn).torch() for row in rows.tolist()}
            if afresh or not turn:
                noise = torch.stack([torch.randn(self.box.low.shape, generator=draw) for draw in draws.values()])
                self.ask(rows, self.box.at(self.middle + self.spread * noise.to(rows.device)), always=True)
            else:
                self.now[rows] = self.best[rows]
            yield draws

    def open(self, among: Tensor | None = None) -> Tensor:
        """The probes below the threshold, of those that are marked."""
        below = self.top < self.threshold
        rows: Tensor = (below if among is None else below & among).nonzero().flatten()
        return rows

    def ask(self, rows: Tensor, points: Tensor, *, always: bool) -> None:
        """Asks for one point a probe, remembers the best, and goes there: always, or where the loss does not rise."""
        loss, confidence = self.box.posterior(points.__getitem__, self.wanted[rows])
        better = confidence > self.top[rows]
        self.best[rows[better]], self.top[rows[better]] = points[better], confidence[better]
        goes = torch.ones_like(better) if always else loss <= self.loss[rows]
        there = rows[goes]
        self.now[there], self.loss[there] = points[goes], loss[goes]

    def found(self) -> Probes:
        return Probes(self.best, self.wanted, self.top, self.box.queries, self.top >= self.threshold)


def slopes(
    box: BlackBox, now: Float[Tensor, "n ..."], wanted: Int[Tensor, " n"], where: Int[Tensor, "n c"], step: float
) -> Float[Tensor, "n c"]:
    """Difference quotient of −log p[wanted] along coordinates `where` of the flattened records, in units of high − low: over
    ±step, or what of it lies in the domain; 0 where low = high. Asks 2·n·c records, made no earlier than they are asked."""
    flat, some = now.flatten(1), where.shape[1]
    low, high, width = (edge.flatten()[where] for edge in (box.low, box.high, box.width))
    here = flat.gather(1, where)
    ends = torch.stack([torch.clamp((here + way * width).to(flat), low, high) for way in (step, -step)], -1)

    def make(part: slice) -> Tensor:
        number = torch.arange(part.start, part.stop, device=flat.device)
        row, place, end = number // (2 * some), number // 2 % some, number % 2
        points = flat[row].scatter(1, where[row, place][:, None], ends[row, place, end][:, None])
        return points.view(-1, *now.shape[1:])

    loss, _ = box.posterior(make, wanted.repeat_interleave(2 * some))
    rise, apart = (pair[..., 0] - pair[..., 1] for pair in (loss.view(ends.shape), ends.double()))
    return torch.where(apart > 0, rise * width / apart, 0.0)


def checked(classes: Tensor) -> Tensor:
    """The wanted classes as int64; raises BadInput where they are none."""
    if classes.dim() != 1 or not len(classes) or classes.is_floating_point() or int(classes.min()) < 0:
        raise BadInput("classes", got=classes, expected="a vector of at least one class number from 0")
    return classes.long()


def counts(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise BadInput(name, got=value, expected="a whole number of at least 1")


def above_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise BadInput(name, got=value, expected="a finite number above 0")


def image_like(shape: tuple[int, ...]) -> None:
    if not 1 <= len(shape) <= 3:
        raise BadInput("shape", got=shape, expected="1 to 3 axes (features, an image, or an image with channels)")


def _run(place: Tensor, length: int, size: int) -> Tensor:
    """Which of `size` places lie in a run of `length` (cut to `size`), (n, size); place: its start, as a share of the range."""
    length = min(length, size)
    first = (place * (size - length + 1)).long().clamp(max=size - length)[:, None]
    across = torch.arange(size, device=place.device)
    return (across >= first) & (across < first + length)
