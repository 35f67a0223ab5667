"""Places that the last pooling leaves."""

from __future__ import annotations

import pytest
import torch

from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.task import Classification


@pytest.mark.parametrize(
    ("places", "side", "left"), [(1, 32, 1), (1, 8, 1), (3, 32, 9), (3, 8, 4), (2, 2, 1), (100, 8, 16)]
)
def test_the_last_pooling_leaves_at_most_so_many_places(places: int, side: int, left: int) -> None:
    domain = (torch.tensor(0.0), torch.tensor(1.0))
    task = Classification(10, (3, side, side), (0.5,) * 3, (0.25,) * 3, domain)
    model = ConvNet(width=2, places=places).build(task, Rng(0)).eval()
    assert list(model.parameters())[-2].shape == (10, 8 * left)
    assert model(torch.rand(4, 3, side, side)).shape == (4, 10)
