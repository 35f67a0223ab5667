"""Pruning: the smallest weights are set to zero before the model is released."""

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
class Pruning(ModelRelease):
    """Magnitude pruning of the released model (inversion paper, section 7; Zhu & Gupta 2017): the smallest weights become zero.

    Weights of linear and convolutional layers are pruned, biases and norms are not. The paper names a share p "of the least
    significant parameters" and no more; `scope` says whether each layer loses that share or the model as a whole. No training
    follows. Guarantees nothing: the weights that stay keep what the deletion did to them, and an attacker may compare those
    alone. Costs accuracy.
    """

    weakens = "feature_inversion"
    paper = "inversion paper, section 7"
    about = "sets the smallest weights to zero"

    share: float = setting(
        0.7, "share of the weights that go (p)", source="inversion paper, 7: 0.7, 0.8, 0.9", least=0, below=1
    )
    scope: Literal["layer", "model"] = setting(
        "layer", "the smallest of each layer, or of all layers together", source="Zhu & Gupta 2017: layer"
    )

    def part(self, task: Task) -> nn.Module:
        return nn.Identity()

    def prepare(self, part: nn.Module, task: Task, retain: Examples, *, rng: Rng, meter: Meter) -> None:
        """It needs no records."""

    def release(self, part: nn.Module, model: nn.Module) -> nn.Module:
        pruned = copy.deepcopy(model)
        weights = [parameter for parameter in pruned.parameters() if parameter.dim() > 1]
        with torch.no_grad():
            groups = [weights] if self.scope == "model" else [[weight] for weight in weights]
            for group in groups:
                sizes = torch.cat([weight.abs().flatten() for weight in group])
                count = int(self.share * len(sizes))
                if count:
                    least = sizes.kthvalue(count).values
                    for weight in group:
                        weight[weight.abs() <= least] = 0
        return pruned
