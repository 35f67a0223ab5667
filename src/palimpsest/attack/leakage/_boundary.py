"""Probes at the edge of a class, for a model that answers with labels only."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palimpsest.attack.leakage._probes import Answer, BlackBox, checked, counts, image_like
from palimpsest.errors import BadInput
from palimpsest.rng import Rng

ROUND = 256
"""Random records drawn before it is looked whether there are enough."""
HALVINGS = 12
"""Lengths tried of a step along the boundary's normal, each half the one before."""


@dataclass(frozen=True)
class BoundaryProbes:
    """Pairs on either side of a decision boundary, and the segment that they lie on. All inputs are in the domain, (p, *shape).

    inputs: labelled as wanted. outside: labelled otherwise. classes: the wanted class of each. gap: largest distance of a
    value of `inputs` from that of `outside`, in units of high − low; inf where nothing was found. deep, beyond: the segment's
    ends, labelled as wanted and otherwise. queries: records asked in all. accepted: whether a pair within the tolerance was
    found; the inputs of other probes mean nothing.
    """

    inputs: Float[Tensor, "p ..."]
    outside: Float[Tensor, "p ..."]
    classes: Int[Tensor, " p"]
    gap: Float[Tensor, " p"]
    deep: Float[Tensor, "p ..."]
    beyond: Float[Tensor, "p ..."]
    queries: int
    accepted: Bool[Tensor, " p"]


def boundary(
    answer: Answer,
    shape: tuple[int, ...],
    classes: Int[Tensor, " p"],
    *,
    domain: tuple[Tensor, Tensor],
    rng: Rng,
    own: Tensor | None = None,
    draws: int = 2000,
    tolerance: float = 1e-3,
    steps: int = 0,
    directions: int = 50,
    at_once: int = 1024,
) -> BoundaryProbes:
    """Inputs just inside the wanted class at its decision boundary, from labels alone.

    Starts are `own` (records that the user has, (m, *shape); may be None) and mosaics: grids of 1 cell up to one a pixel, a
    random colour each, drawn until every wanted class has as many as it has probes, `draws` at most. Each probe takes a start
    labelled as wanted and, at random, one labelled otherwise, and halves the segment between them until no value of its ends
    differs by more than `tolerance` (in units of high − low), at most ⌈log₂ 1/tolerance⌉ queries. A class with fewer starts
    than probes uses a start for several segments.

    steps: then so many steps of HopSkipJump (Chen, Jordan & Wainwright 2020, the targeted form in L2) from the probe towards
    `beyond`, each of directions·√t labels for the boundary's normal, a step along it, and another halving. A step is kept where
    it brings the probe nearer. directions: labels of the first step's estimate.

    What it gives: a probe whose label flips where the boundary near it moves by the tolerance, so that unlearning shows in
    labels. What it does not: any change of a model flips such probes, training from another seed most of all, so flips alone
    hardly name a class. The place where the boundary crosses the segment from `deep` to `beyond`, halved anew on the other
    model, says how far and to which side it moved. On digits (ours: 16 models unlearned by fine-tuning, ascent or retraining,
    10 % to all of a class, 8 streams) the class of most flips was the forgotten one in 66 of 128 cases, that of the largest mean
    retreat in 93; with 3 steps in 59 and 91, at 270 queries a probe in place of 30. So steps are off by default. Nothing says
    that a probe is near training data; of several crossings of a segment one is found.

    classes, domain, at_once: as for `zeroth_order`. A probe of a class that no start is labelled as, or of the only class that
    the model answers, is not accepted. Raises BadInput for settings out of range and answers that are no labels.
    """
    counts(draws=draws, directions=directions)
    image_like(shape)
    if steps < 0:
        raise BadInput("steps", got=steps, expected="a whole number of at least 0")
    if not 1e-6 <= tolerance < 1:
        raise BadInput(
            "tolerance", got=tolerance, expected="a share of high − low from 1e-6 (float32's limit) to below 1"
        )
    box = BlackBox(answer, shape, domain, at_once)
    wanted = checked(classes).to(box.low.device)
    starts, labels = _starts(box, wanted, own, draws, rng)
    deep, beyond = (torch.zeros(len(wanted), *shape).to(box.low) for _ in range(2))
    found = torch.zeros(len(wanted), dtype=torch.bool, device=wanted.device)
    used = Counter[int]()
    for slot, kind in enumerate(wanted.tolist()):
        ours, others = (labels == kind).nonzero().flatten(), (labels != kind).nonzero().flatten()
        if len(ours) and len(others):
            other = torch.randint(len(others), (), generator=rng.child("segment", slot).torch())
            deep[slot], beyond[slot] = starts[ours[used[kind] % len(ours)]], starts[others[other]]
            found[slot] = True
            used[kind] += 1
    inside, outside, rows = deep.clone(), beyond.clone(), found.nonzero().flatten()
    if len(rows):
        edge = _Edge(box, wanted[rows], tolerance, deep[rows], inside[rows], beyond[rows].clone(), beyond[rows])
        edge.halve(torch.arange(len(rows), device=rows.device))
        for turn in range(1, steps + 1):
            edge.jump(turn, directions, rng.child("step", turn).torch())
        deep[rows], inside[rows], outside[rows] = edge.deep, edge.inside, edge.outside
    gap = torch.where(found, (inside - outside).abs().flatten(1).amax(1).double(), math.inf)
    ends = [box.at(level) for level in (inside, outside, deep, beyond)]
    return BoundaryProbes(ends[0], ends[1], wanted, gap, ends[2], ends[3], box.queries, found)


@dataclass
class _Edge:
    """Probes on their way along the boundary. All but the box and the wanted classes are levels between low (0) and high (1)."""

    box: BlackBox
    wanted: Tensor
    tolerance: float
    deep: Tensor
    inside: Tensor
    outside: Tensor
    beyond: Tensor

    def halve(self, slots: Tensor) -> None:
        """Brings inside and outside together until no value differs by more than the tolerance."""
        while True:
            slots = slots[(self.inside[slots] - self.outside[slots]).abs().flatten(1).amax(1) > self.tolerance]
            if not len(slots):
                return
            middle = (self.inside[slots] + self.outside[slots]) / 2
            within = _labels(self.box, middle) == self.wanted[slots]
            self.inside[slots[within]], self.outside[slots[~within]] = middle[within], middle[~within]

    def jump(self, turn: int, directions: int, draw: torch.Generator) -> None:
        """One step of HopSkipJump towards `beyond`; probes that it brings no nearer stay where they are."""
        before = replace(self, deep=self.deep.clone(), inside=self.inside.clone(), outside=self.outside.clone())
        apart = self._apart()
        normal = torch.stack(
            [self._normal(slot, round(directions * math.sqrt(turn)), draw) for slot in range(len(apart))]
        )
        size, slots = apart / math.sqrt(turn), torch.arange(len(apart), device=apart.device)
        for _ in range(HALVINGS):
            away = size[slots].view(-1, *(1,) * (normal.dim() - 1))
            point = (before.inside[slots] + away * normal[slots]).clamp(0, 1)
            within = _labels(self.box, point) == self.wanted[slots]
            self.deep[slots[within]] = point[within]
            slots = slots[~within]
            if not len(slots):
                break
            size[slots] /= 2
        self.inside, self.outside = self.deep.clone(), self.beyond.clone()
        moved = torch.ones(len(apart), dtype=torch.bool, device=apart.device)
        moved[slots] = False
        self.halve(moved.nonzero().flatten())
        worse = ~(moved & (self._apart() < apart))
        for name in ("deep", "inside", "outside"):
            getattr(self, name)[worse] = getattr(before, name)[worse]

    def _apart(self) -> Tensor:
        apart: Tensor = (self.inside - self.beyond).flatten(1).norm(dim=1)
        return apart

    def _normal(self, slot: int, directions: int, draw: torch.Generator) -> Tensor:
        """Unit vector into the class, estimated from the labels of points around the probe (HopSkipJump, Eq. 16)."""
        here = self.inside[slot]
        way = torch.randn(directions, *here.shape, generator=draw).to(here)
        ones = (-1, *(1,) * here.dim())
        gap = (here - self.outside[slot]).norm()
        radius = torch.maximum(gap, (here - self.beyond[slot]).norm() / here.numel())
        points = (here + radius * way / way.flatten(1).norm(dim=1).view(ones)).clamp(0, 1)
        sign = (_labels(self.box, points) == self.wanted[slot]).to(here) * 2 - 1
        weight = sign if bool(sign.mean().abs() == 1) else sign - sign.mean()
        normal: Tensor = ((points - here) * weight.view(ones)).mean(0)
        normal /= normal.norm().clamp_min(1e-12)
        return normal


def _starts(box: BlackBox, wanted: Tensor, own: Tensor | None, draws: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """Levels of records and their labels, no more of a label than the most probes of one class."""
    need, have = Counter(wanted.tolist()), Counter[int]()
    levels: list[Tensor] = []
    labels: list[int] = []

    def keep(some: Tensor) -> None:
        for level, label in zip(some, _labels(box, some).tolist(), strict=True):
            if have[label] < max(need.values()):
                have[label] += 1
                levels.append(level.clone())
                labels.append(label)

    def enough() -> bool:
        return len(have) > 1 and all(have[kind] >= number for kind, number in need.items())

    if own is not None and len(own):
        if own.shape[1:] != box.low.shape:
            expected = f"records of shape {tuple(box.low.shape)}"
            raise BadInput("own", got=f"records of shape {tuple(own.shape[1:])}", expected=expected)
        level = (own.to(box.low).double() - box.low) / torch.where(box.width > 0, box.width, 1.0)
        keep(level.clamp(0, 1).to(box.low))
    for begun in range(0, draws, ROUND):
        if enough():
            break
        some = _mosaics(tuple(box.low.shape), min(ROUND, draws - begun), rng.child("draw", begun).torch())
        keep(some.to(box.low))
    return torch.stack(levels), torch.tensor(labels, device=box.low.device)


def _mosaics(shape: tuple[int, ...], n: int, draw: torch.Generator) -> Tensor:
    """Records of as many cells a side as drawn, from 1 to one a pixel (log-uniform), each cell of uniform random level."""
    channels, height, width = image = (1,) * (3 - len(shape)) + tuple(shape)
    cells = torch.exp(torch.rand(n, generator=draw) * math.log(max(height, width) + 0.999)).long()[:, None]
    levels = torch.rand(n, *image, generator=draw)
    down, across = (torch.arange(size) * cells.clamp(max=size) // size for size in (height, width))
    rows, planes = torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None]
    return levels[rows, planes, down[:, None, :, None], across[:, None, None, :]].reshape(n, *shape)


def _labels(box: BlackBox, levels: Tensor) -> Tensor:
    """The labels of records given as levels, int64."""
    parts = []
    for _, labels in box.answers(lambda part: box.at(levels[part]), len(levels)):
        if labels.dim() != 1 or labels.is_floating_point():
            got = f"shape {tuple(labels.shape)} of {labels.dtype}"
            raise BadInput("answer", got=got, expected="labels: whole numbers of shape (n,)")
        parts.append(labels.long())
    return torch.cat(parts)
