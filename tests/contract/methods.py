"""The unlearners of the catalog, at settings that suit the small models of the contract tests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from palimpsest import catalog
from palimpsest.unlearn.base import Unlearner

MEMBERS = catalog.members("unlearners")
every_member = pytest.mark.parametrize("name", sorted(MEMBERS))

LEARNERS = {"objective_perturbed": {"sigma": 100.0, "weight_decay": 10.0}}
"""Settings of learners: this one's, so that the certificate outlasts the forgetting of a class."""

BITES = {
    "ssd": {"alpha": 0.5},
    "amnesiac": {"repair_epochs": 1},
    "deltagrad": {"burn_in": 4, "period": 3},
    "certified_removal": {"bound": "tight"},
    "features_and_labels": {"samples": 40, "tolerance": 1e-3, "damping": 0.1},
    "fisher": {"samples": 15},
}
"""Settings under which a method does its work on the small model here, where its defaults do not, or not quickly."""


def ready(name: str) -> Unlearner:
    return MEMBERS[name](**BITES.get(name, {}))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())
