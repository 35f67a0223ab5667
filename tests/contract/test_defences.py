"""What every defence must pass, and what a bad one does not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from palimpsest import contract
from palimpsest.catalog import make, members
from palimpsest.defend.base import ModelRelease
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples
from tests.contract.situations import bench

QUICK = {"purification": {"shrink": 2, "width": 16, "epochs": 15}, "pruning": {"share": 0.2}}


def outcomes(defence: object) -> dict[str, str]:
    torch.set_num_threads(1)
    return {outcome.check: outcome.failure for outcome in contract.run("defences", defence, bench())}


@pytest.mark.parametrize("name", sorted(members("defences")))
def test_every_defence_of_the_catalog_passes(name: str) -> None:
    found = outcomes(make("defences", name, QUICK.get(name)))
    assert found
    assert {check: failure for check, failure in found.items() if failure} == {}


@dataclass(frozen=True)
class Grey(ModelRelease):
    """Shows the model a grey image, whatever is asked; and keeps what it draws to itself."""

    weakens = "uma"
    about = "collapse"

    def part(self, task: Task) -> nn.Module:
        return nn.Identity()

    def prepare(self, part: nn.Module, task: Task, retain: Examples, *, rng: Rng, meter: Meter) -> None:
        meter.count(len(retain))

    def release(self, part: nn.Module, model: nn.Module) -> nn.Module:
        return Asked(model)


class Asked(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.detach().mean(0, keepdim=True).expand_as(images))
        return logits


def test_a_release_that_wins_by_collapse_is_found_out() -> None:
    found = outcomes(Grey())
    assert "test accuracy" in found["lets honest records through to the model"]
    assert found["serves what the model takes and answers"]
    assert not found["declares its stage and the attack that it weakens"]


def test_what_it_weakens_must_be_an_attack() -> None:
    class Nothing(Grey):
        weakens = "nothing"

    assert "expected the name of an attack" in outcomes(Nothing())["declares its stage and the attack that it weakens"]


def test_guards_are_not_checked_as_releases() -> None:
    guard = make("defences", "adversarial_unlearning")
    assert set(contract.skipped("defences", guard)) == {
        check for check, why in contract.skipped("defences", guard).items() if why == "it is no release"
    }
    assert len(contract.skipped("defences", guard)) == 3
    assert replace(guard, steps=2).steps == 2
