"""Two updates since the same weights: with one step on all records each, they give the deleted records' gradient exactly."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage.two_update_inversion import TwoUpdateInversion
from palimpsest.case import Case
from palimpsest.errors import BadInput
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import View
from palimpsest.types import Examples, ForgetRequest, Split

SEARCH: dict[str, Any] = {"iterations": 300, "restarts": 1, "total_variation": 0.0, "batching": "loop"}


@dataclass(frozen=True)
class Heard(TwoUpdateInversion):
    """Notes what it is to match, and where."""

    told: list[tuple[nn.Module, Sequence[Tensor]]] = field(default_factory=list, compare=False)

    def invert(
        self, model: nn.Module, task: Classification, wanted: Sequence[Tensor], *args: Any, **more: Any
    ) -> Guess:
        self.told.append((model, wanted))
        return super().invert(model, task, wanted, *args, **more)


def once(digits: Split, task: Classification, gone: int) -> tuple[Case, Examples]:
    """60 records, and 60 less those that are deleted, take one step together from the same weights."""
    torch.set_num_threads(1)
    train = digits.train.take(list(range(60)))
    forget = train.take(list(range(gone)))
    recipe = Recipe(epochs=1, batch_size=60, lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant")
    fit = [
        Plain().fit(task, records, recipe, Linear(), rng=Rng(0))
        for records in (train, train.without(forget.ids.tolist()))
    ]
    request = ForgetRequest(forget.ids, "some")
    return Case(replace(digits, train=train), (request,), fit[0], fit[1]), forget


@pytest.mark.parametrize("gone", [1, 7])
def test_after_one_step_each_it_is_the_sum_of_the_deleted_records_gradients(
    digits: Split, digits_task: Classification, gone: int
) -> None:
    case, forget = once(digits, digits_task, gone)
    attack = Heard(**{**SEARCH, "iterations": 1})
    attack.observe(View(attack.threat, case), rng=Rng(0))
    ((start, wanted),) = attack.told
    slopes = gradient(start, digits_task, forget)
    one, other = (torch.cat([part.flatten() for part in parts]).double() for parts in (wanted, slopes))
    assert float(one @ other / one.norm() / other.norm()) > 0.999
    assert float(one.norm()) == pytest.approx(0.1 * float(other.norm()), rel=1e-2)


def gradient(model: nn.Module, task: Classification, records: Examples) -> tuple[Tensor, ...]:
    fresh = copy.deepcopy(model).requires_grad_()
    return torch.autograd.grad(task.loss(fresh, records.batch(), reduction="sum"), list(fresh.parameters()))


def test_the_difference_of_the_two_models_is_not(digits: Split, digits_task: Classification) -> None:
    """Each took the mean over its own number of records, and so the others' gradients do not cancel."""
    case, forget = once(digits, digits_task, 7)
    slopes = gradient(case.original.model, digits_task, forget)
    pairs = zip(case.subject.model.parameters(), case.original.model.parameters(), strict=True)
    plain = torch.cat([(end - start).detach().flatten() for end, start in pairs]).double()
    wanted = torch.cat([part.flatten() for part in slopes]).double()
    assert float(plain @ wanted / plain.norm() / wanted.norm()) < 0.99


def test_the_record_is_recovered(digits: Split, digits_task: Classification) -> None:
    case, forget = once(digits, digits_task, 1)
    attack = TwoUpdateInversion(**SEARCH)
    found = attack.observe(View(attack.threat, case), rng=Rng(0)).tensors["recovered"]
    truth = forget.batch().inputs[digits_task.attacked_input]
    assert float(-10 * (found - truth).square().mean().log10()) > 30


def test_one_model_twice_is_refused(digits: Split, digits_task: Classification) -> None:
    case, _ = once(digits, digits_task, 1)
    attack = TwoUpdateInversion(**SEARCH)
    with pytest.raises(BadInput, match="two models: got equal weights"):
        attack.observe(View(attack.threat, replace(case, subject=case.original)), rng=Rng(0))
