"""A small trained network to ask."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Split


@pytest.fixture(scope="module")
def digits_mlp(digits: Split, digits_task: Classification) -> nn.Module:
    torch.set_num_threads(1)
    recipe = Recipe(epochs=8, batch_size=64)
    return Plain().fit(digits_task, digits.train, recipe, Mlp(width=32, layers=2), rng=Rng(0)).model.eval()
