"""Rounding: the released weights are stored in a short float format."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from palimpsest.catalog import setting
from palimpsest.defend.base import ModelRelease
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples


@dataclass(frozen=True)
class Rounding(ModelRelease):
    """The model as a file of float16 or bfloat16 keeps it, as many are stored.

    A move of a weight that is smaller than the format resolves is lost in it or becomes a whole unit in the last place, and one
    step of single-gradient unlearning moves weights by little. Guarantees nothing, least of all for large deletions. Only what is
    released after unlearning is rounded. An attacker who rounds his original alike before he compares has a difference nearer to
    the true one than by taking it as it is, since equal weights are then rounded equally (`adaptive_inversion`).
    """

    weakens = "feature_inversion"
    paper = "ours"
    about = "stores released weights in a short float format"

    format: Literal["float16", "bfloat16"] = setting("float16", "what weights are rounded to", source="common practice")

    def part(self, task: Task) -> nn.Module:
        return nn.Identity()

    def prepare(self, part: nn.Module, task: Task, retain: Examples, *, rng: Rng, meter: Meter) -> None:
        """It needs no records."""

    def release(self, part: nn.Module, model: nn.Module) -> nn.Module:
        rounded = copy.deepcopy(model)
        with torch.no_grad():
            for value in (*rounded.parameters(), *rounded.buffers()):
                if value.is_floating_point():
                    value.copy_(value.to(getattr(torch, self.format)))
        return rounded
