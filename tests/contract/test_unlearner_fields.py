"""Every hyper-parameter of every unlearner is read: none is parsed and then left alone."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from palimpsest import catalog
from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.unlearn.base import Unlearner
from tests.contract.methods import BITES, MEMBERS, same, state

OTHER: dict[tuple[str, str], Any] = {
    ("gradient_ascent", "clip"): 1e-3,
    ("image_to_image", "clip"): 1e-3,
    ("single_gradient", "lr"): 0.7,
    ("single_gradient", "epochs"): 5,
    ("single_gradient", "batch_size"): 7,
    ("influence", "samples"): 20,
    ("influence", "tolerance"): 0.5,
    ("influence", "iterations"): 1,
    ("influence", "memory"): 0.0,
    ("salun", "share"): 0.2,
    ("salun", "order"): "joint",
    ("random_label", "order"): "joint",
    ("scrub", "max_epochs"): 1,
    ("scrub", "decay_at"): (1,),
    ("scrub", "forget_batch_size"): 8,
    ("scrub_rewind", "max_epochs"): 1,
    ("scrub_rewind", "decay_at"): (1,),
    ("scrub_rewind", "forget_batch_size"): 8,
    ("exact_unlearning_k", "lr"): 0.02,
    ("exact_unlearning_k", "momentum"): 0.5,
    ("exact_unlearning_k", "weight_decay"): 0.1,
    ("fisher", "samples"): 20,
    ("features_and_labels", "features"): (27, 28, 35),
    ("features_and_labels", "samples"): 20,
    ("features_and_labels", "tolerance"): 0.5,
    ("features_and_labels", "iterations"): 1,
    ("ssd", "samples"): 20,
    ("noisy_gradient_descent", "momentum"): 0.5,
    ("amnesiac", "repair_epochs"): 2,
    ("certified_removal", "epsilon"): 1e-4,
    ("certified_removal", "delta"): 1e-300,
    ("certified_removal", "bound"): "paper",
}
"""The other value to try, where "twice, one more, the other one" will not do."""

BASE: dict[tuple[str, str], dict[str, Any]] = {
    ("influence", "tolerance"): {"curvature": "ggn"},
    ("influence", "iterations"): {"curvature": "ggn"},
    ("fisher", "largest"): {"largest": 1e-3},
    ("salun", "alpha"): {"order": "joint"},
    ("random_label", "alpha"): {"order": "joint"},
    ("features_and_labels", "features"): {"replace": "features", "features": (27,)},
    ("features_and_labels", "rate"): {"order": "first"},
    **{
        ("scrub_rewind", field): {"lr": 0.02, "epochs": 4} for field in ("max_epochs", "decay_at", "epochs")
    },  # else no epoch differs
    ("features_and_labels", "curvature"): {"damping": 10.0},  # the exact Hessian is indefinite here
}
"""Settings under which the field has anything to say."""

REFUSED = {("influence", "iterations"), ("features_and_labels", "iterations")}
"""Fields whose other value is read, and refused."""

SAME_RESULT = {
    ("influence", "vectorised"): "another order of the same sums",
    ("ssd", "vectorised"): "another order of the same sums",
    ("fisher", "vectorised"): "another order of the same sums",
    ("influence", "memory"): "another solver of the same system",
    ("influence", "double"): "the same numbers with more digits",
}
"""Fields that must not change the result beyond rounding, and why."""


def other_value(name: str, entry: dataclasses.Field, hint: Any) -> Any:
    if (name, entry.name) in OTHER:
        return OTHER[name, entry.name]
    if entry.name in ("batch_size", "epochs"):
        return {"batch_size": 8, "epochs": 1}[entry.name]
    if typing.get_origin(hint) is typing.Literal:
        return next(option for option in typing.get_args(hint) if option != entry.default)
    if isinstance(entry.default, bool):
        return not entry.default
    if isinstance(entry.default, (int, float)):
        twice = entry.default * 2 if entry.default else type(entry.default)(1)
        bounds = entry.metadata["bounds"]
        return twice if bounds is None or bounds.allow(twice) else entry.default / 2
    raise AssertionError(f"{name}.{entry.name}: say in OTHER which other value to try")


FIELDS = [(name, entry.name) for name, cls in sorted(MEMBERS.items()) for entry in dataclasses.fields(cls)]


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[f"{name}.{field}" for name, field in FIELDS])
def test_every_field_is_read(name, field, trained, unlearned, retain, forget) -> None:
    cls = MEMBERS[name]
    entry = next(entry for entry in dataclasses.fields(cls) if entry.name == field)
    common = {"epochs": 2, "batch_size": 50} if "momentum" in catalog.settings_of(cls()) else {}
    base = {**common, **BITES.get(name, {}), **BASE.get((name, field), {})}
    other = {field: other_value(name, entry, typing.get_type_hints(cls)[field])}
    one = unlearned(name, base)
    if (name, field) in REFUSED:
        with pytest.raises(BadInput, match=field):
            cls(**{**base, **other}).unlearn(trained, retain, forget, rng=Rng(1))
        return
    two = cls(**{**base, **other}).unlearn(trained, retain, forget, rng=Rng(1))
    if (name, field) in SAME_RESULT:
        old, first, second = (flat(t.model) for t in (trained, one, two))
        assert float((first - second).norm()) < 1e-3 * float((first - old).norm()), SAME_RESULT[name, field]
        spent = one.cost.gradient_evaluations != two.cost.gradient_evaluations
        assert spent or not same(state(one.model), state(two.model)), "neither the cost nor one bit changes: not read"
    else:
        assert not same(state(one.model), state(two.model)), f"{name}.{field} changes nothing"


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_test_of_fields_can_fail(trained_for, retain, forget) -> None:
    """A method with a setting that nobody reads is caught."""

    @dataclasses.dataclass(frozen=True)
    class Deaf(MEMBERS["finetune"]):  # type: ignore[misc]
        unread: float = catalog.setting(1.0, "read by nobody", source="a mistake")

    trained = trained_for(Unlearner)
    one, two = (Deaf(unread=value, epochs=1).unlearn(trained, retain, forget, rng=Rng(1)) for value in (1.0, 2.0))
    assert same(state(one.model), state(two.model))
