"""Several models that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Aggregate = Literal["mean", "vote"]
LEAST = 1e-6  # share of the votes that a class without any is given, so that its logarithm is finite


class Ensemble(nn.Module):
    """Logarithms of the members' mean posterior, or of their shares of the votes, shape (n, k): softmax gives those back.

    Votes have no gradient, so that an attack by gradients finds nothing in them; that is no robustness. Members that are not
    `filled` (no two records to train on) are left out.
    """

    filled: Tensor

    def __init__(self, members: Sequence[nn.Module], aggregate: Aggregate = "mean") -> None:
        super().__init__()
        self.members, self.aggregate = nn.ModuleList(members), aggregate
        self.register_buffer("filled", torch.ones(len(members)))

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        posteriors = torch.stack([F.softmax(self._logits(member, inputs, named), 1) for member in self.members])
        if self.aggregate == "vote":
            posteriors = F.one_hot(posteriors.argmax(2), posteriors.shape[2]).to(posteriors.dtype)
        weights = (self.filled / self.filled.sum()).to(posteriors.dtype)
        together = torch.tensordot(weights, posteriors, 1)
        floor = LEAST if self.aggregate == "vote" else torch.finfo(together.dtype).tiny
        answer: Tensor = together.clamp_min(floor).log()
        return answer

    @staticmethod
    def _logits(member: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> Tensor:
        answer = member(*inputs, **named)
        logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
