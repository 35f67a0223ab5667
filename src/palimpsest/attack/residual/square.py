"""Square attack: brings answers back without a gradient, by random squares of changed pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from palimpsest.attack.residual.base import AUDITOR, Recovery
from palimpsest.attack.search import Found, ball
from palimpsest.catalog import setting
from palimpsest.rng import Rng
from palimpsest.threat import View
from palimpsest.types import Batch

HALVED = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which the squares' area is halved (10, 50, 200, … of 10,000)."""


@dataclass(frozen=True)
class Square(Recovery):
    """Andriushchenko et al. 2020, "Square attack" (L∞), on UMA's aim: the least KL of the original's posterior from the subject's.

    It starts from vertical stripes at the ends of the ball; each query then sets one random square of each record to one end per
    channel, and keeps it where the loss falls. The squares' area falls from `area` of the image as the paper's schedule has it. It
    asks both models for posteriors only.

    A check on UMA: where it brings back more than an attack with gradients does, that one's gradients are masked or it is mis-set,
    and its silence proves nothing. Alone it is weak, so its own silence proves nothing either.
    """

    threat = replace(AUDITOR, knowledge="K3", sees="posterior")
    paper = "Andriushchenko et al. 2020; aim after the UMA paper, Eq. 4"
    about = "black-box check of UMA: random squares, posteriors only"
    primary = "square.forget_accuracy"

    queries: int = setting(500, "queries of the subject for each record and ε", source="ours; paper: 10,000", least=1)
    area: float = setting(0.8, "share of the image that the first squares cover", source="AutoAttack", above=0, most=1)

    def perturb(self, view: View, inputs: Tensor, wanted: Tensor, rng: Rng) -> Found:
        low, high = view.task.domain
        found = [
            self._descend(view, inputs, wanted, radius, low, high, rng.child("epsilon", place))
            for place, radius in enumerate(self.epsilon)
        ]
        best, loss = (torch.cat([one[part] for one in found]) for part in (0, 1))
        none = torch.zeros(len(best), dtype=torch.long, device=best.device)
        return Found(best, loss, none.bool(), none, 0)

    def _descend(
        self, view: View, inputs: Tensor, wanted: Tensor, radius: float, low: Tensor, high: Tensor, rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """Best inputs and their loss, all records side by side."""
        draw = rng.torch()
        size = torch.full((len(inputs),), radius, dtype=torch.float64, device=inputs.device)
        ends = torch.stack(ball(inputs, size, low, high))
        shape = (len(inputs), *((1,) * (4 - inputs.dim())), *inputs.shape[1:])  # features are an image of one row
        ends = ends.view(2, *shape)
        n, channels, height, width = shape
        rows = torch.arange(n, device=inputs.device)

        def at(signs: Tensor) -> Tensor:
            """The lower or the upper end, by a Boolean that is broadcast over the image."""
            return torch.where(signs.to(inputs.device), ends[1], ends[0])

        def asked(now: Tensor) -> Tensor:
            parts = zip(torch.split(now, self.batch_size), torch.split(wanted, self.batch_size), strict=True)
            losses = [_divergence(view, part.view(-1, *inputs.shape[1:]), aim) for part, aim in parts]
            return torch.cat(losses)

        best = at(torch.rand(n, channels, 1, width, generator=draw) < 0.5)
        loss = asked(best)
        for turn in range(self.queries):
            share = self.area * 0.5 ** sum(turn >= part * self.queries for part in HALVED)
            side = max(1, round(math.sqrt(share * height * width)))
            tall, wide = min(side, height), min(side, width)
            top = torch.randint(height - tall + 1, (n,), generator=draw).to(inputs.device)
            left = torch.randint(width - wide + 1, (n,), generator=draw).to(inputs.device)
            signs = at(torch.rand(n, channels, 1, 1, generator=draw) < 0.5)
            down, across = torch.arange(height, device=inputs.device), torch.arange(width, device=inputs.device)
            inside = ((down >= top[:, None]) & (down < top[:, None] + tall))[:, None, :, None]
            inside = inside & ((across >= left[:, None]) & (across < left[:, None] + wide))[:, None, None, :]
            tried = torch.where(inside, signs, best)
            after = asked(tried)
            better = rows[after < loss]
            best[better], loss[better] = tried[better], after[better]
        return best.view_as(inputs), loss


def _divergence(view: View, inputs: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted ‖ the subject's posterior) in nats, shape (n,)."""
    batch = Batch({view.task.attacked_input: inputs}, torch.zeros(len(inputs), dtype=torch.long, device=inputs.device))
    answer = view.after.posterior(batch).clamp_min(1e-30).log()
    divergence: Tensor = (torch.xlogy(wanted, wanted) - wanted * answer).sum(1)
    return divergence
