"""Schedules at known values, and recipes that cannot be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from palimpsest.errors import BadInput
from palimpsest.learn.recipe import Recipe, optimizer, rate


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0] * 10),
        ("linear", [1 - step / 10 for step in range(10)]),
        ("cosine", [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]),
        ("one_cycle", [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("step", [1.0] * 5 + [0.1] * 3 + [0.01] * 2),
    ],
)
def test_the_rate_of_each_step(schedule: Any, expected: list[float]) -> None:
    recipe = Recipe(lr=0.2, schedule=schedule)
    assert [rate(recipe, step, 10) / 0.2 for step in range(10)] == pytest.approx(expected)


@given(
    st.sampled_from(["constant", "linear", "cosine", "one_cycle", "step"]),
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))),
)
def test_lr_is_the_highest_rate(schedule: Any, place: tuple[int, int]) -> None:
    assert 0 <= rate(Recipe(lr=0.5, schedule=schedule), *place) <= 0.5


@given(st.integers(1, 300))
def test_one_cycle_rises_then_falls_and_reaches_its_height(steps: int) -> None:
    rates = [rate(Recipe(lr=1.0, schedule="one_cycle"), step, steps) for step in range(steps)]
    top = max(range(steps), key=rates.__getitem__)
    assert rates[top] > 0.9
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"lr": -0.1},
        {"weight_decay": -1.0},
        {"weight_decay": float("nan")},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
    ],
)
def test_a_recipe_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(BadInput, match=rf"recipe\.{name}: got .*, expected"):
        Recipe(**wrong)


def test_the_optimiser_is_the_one_asked_for_and_leaves_frozen_parameters_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    sgd = optimizer(model, Recipe(lr=0.3, momentum=0.7, weight_decay=0.01))
    assert isinstance(sgd, torch.optim.SGD)
    (group,) = sgd.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.3, 0.7, 0.01, False)
    assert {id(p) for p in group["params"]} == {id(p) for p in model[1].parameters()}
    adamw = optimizer(model, Recipe(optimizer="adamw", lr=0.3, momentum=0.7, weight_decay=0.01))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.7, 0.999)
    assert adamw.param_groups[0]["weight_decay"] == 0.01
