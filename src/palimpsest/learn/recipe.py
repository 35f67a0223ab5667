"""How a model is trained: everything but the data and the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from palimpsest.catalog import Checked, setting


@dataclass(frozen=True)
class Recipe(Checked):
    """Optimiser, schedule and regularisation of one training run."""

    revision: ClassVar[int] = 1

    epochs: int = setting(
        15,
        "passes over the training records",
        source="quick runs; 182 in SalUn's code, 100 in the poisoning paper",
        least=0,
    )
    batch_size: int = setting(128, "records a step", source="inversion paper", least=1)
    optimizer: Literal["sgd", "adamw"] = setting("sgd", "sgd or adamw", source="the papers")
    lr: float = setting(0.1, "highest learning rate", source="inversion paper: SGD 0.1", above=0)
    momentum: float = setting(0.9, "SGD momentum; AdamW's first beta", source="public code", least=0, below=1)
    weight_decay: float = setting(5e-4, "decay of all weights", source="inversion paper", least=0)
    schedule: Literal["constant", "linear", "cosine", "one_cycle", "step"] = setting(
        "one_cycle", "constant; linear or cosine to 0; linear up (first 20 %) and down; ×0.1 at 1/2, 3/4", source="ours"
    )
    label_smoothing: float = setting(
        0.0, "share of the target spread over all classes", source="ours", least=0, below=1
    )
    augment: Literal["none", "crop", "flip", "crop+flip"] = setting(
        "none", "random crop (padding 1/8) and mirror", source="ours"
    )
    autocast: bool = setting(True, "bfloat16 where the device is a GPU", source="ours")
    channels_last: bool = setting(
        True, "memory layout for convolutions; the same up to rounding, and up to what dropout drops", source="ours"
    )


def optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=recipe.lr, betas=(recipe.momentum, 0.999), weight_decay=recipe.weight_decay
        )
    return torch.optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of step 0 … steps−1."""
    done = step / max(1, steps)
    if recipe.schedule == "linear":
        return recipe.lr * (1 - done)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "one_cycle":
        rise = 0.2
        return recipe.lr * min(1.0, (step + 1) / max(1.0, rise * steps) if done < rise else (1 - done) / (1 - rise))
    if recipe.schedule == "step":
        return recipe.lr * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    return recipe.lr
