"""What every unlearner of the catalog must pass, whatever its idea."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import typing
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest import catalog
from palimpsest.errors import BadInput, UnknownName
from palimpsest.learn.base import Trained
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner

MEMBERS = catalog.members("unlearners")
every_member = pytest.mark.parametrize("name", sorted(MEMBERS))


@pytest.fixture(scope="module")
def records(digits) -> Examples:
    """150 training digits, 15 of each class."""
    targets = digits.train.targets.numpy()
    return digits.train.take(np.sort(np.concatenate([np.flatnonzero(targets == c)[:15] for c in range(10)])))


@pytest.fixture(scope="module")
def forget(records) -> Examples:
    """Class 0, and two records of other classes."""
    return records.take(np.flatnonzero((records.targets.numpy() == 0) | np.isin(np.arange(150), (20, 90))))


@pytest.fixture(scope="module")
def retain(records, forget) -> Examples:
    return records.without(forget.ids)


@pytest.fixture(scope="module")
def trained_for(records, digits_task) -> typing.Callable[[type[Unlearner]], Trained]:
    """A small model for every method, the same for all that need no other learner, recipe or kind of model."""
    made: dict[str, Trained] = {}

    def train(method: type[Unlearner]) -> Trained:
        learner = method.needs or "plain"
        key = f"{learner} {method.needs_recipe} {method.mixes}"
        if key not in made:
            recipe = Recipe(**{"epochs": 3, "batch_size": 50, **method.needs_recipe})
            one = catalog.make("learners", learner, LEARNERS.get(learner))
            factory = ConvNet(width=2) if method.mixes else Mlp(width=16, layers=2)
            factory = catalog.make("models", one.for_model) if one.for_model else factory
            made[key] = one.fit(digits_task, records, recipe, factory, rng=Rng(0))
        return made[key]

    return train


LEARNERS = {"objective_perturbed": {"sigma": 100.0, "weight_decay": 10.0}}
"""Settings of learners: this one's, so that the certificate outlasts the forgetting of a class."""

BITES = {
    "ssd": {"alpha": 0.5},
    "amnesiac": {"repair_epochs": 1},
    "deltagrad": {"burn_in": 4, "period": 3},
    "certified_removal": {"bound": "tight"},
    "features_and_labels": {"samples": 40, "tolerance": 1e-3},
}
"""Settings under which a method does its work on the small model here, where its defaults do not, or not quickly."""


def ready(name: str) -> Unlearner:
    return MEMBERS[name](**BITES.get(name, {}))


@pytest.fixture
def trained(name, trained_for, digits) -> Trained:
    return dataclasses.replace(trained_for(MEMBERS[name]), validation=digits.validation)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())


@every_member
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_model_that_goes_in_is_untouched(name, training, trained, retain, forget) -> None:
    trained.model.train(training)
    parameter = next(trained.model.parameters())
    parameter.requires_grad_(False)
    before, ids, kept = state(trained.model), trained.ids.copy(), {k: v.clone() for k, v in trained.kept.items()}
    slopes = [None if p.grad is None else p.grad.clone() for p in trained.model.parameters()]
    try:
        result = ready(name).unlearn(trained, retain, forget, rng=Rng(1))
        assert same(before, trained.model.state_dict())
        assert all(module.training == training for module in trained.model.modules())
        assert not parameter.requires_grad
        for p, slope in zip(trained.model.parameters(), slopes, strict=True):
            assert (p.grad is None) if slope is None else torch.equal(p.grad, slope)
        assert (trained.ids == ids).all()
        assert same(kept, dict(trained.kept))
    finally:
        parameter.requires_grad_(True)
        trained.model.eval()
    theirs = {value.data_ptr() for value in trained.model.state_dict().values()}
    assert theirs.isdisjoint(value.data_ptr() for value in result.model.state_dict().values()), "shared storage"


@every_member
def test_what_comes_out(name, trained, retain, forget) -> None:
    result = ready(name).unlearn(trained, retain, forget, rng=Rng(1))
    assert sorted(result.ids) == sorted(set(trained.ids) - set(forget.ids))
    assert not any(module.training for module in result.model.modules())
    assert all(p.requires_grad and p.grad is None for p in result.model.parameters())
    weights = dict(trained.model.named_parameters())
    assert any(not torch.equal(value, weights[key]) for key, value in result.model.named_parameters()), "nothing moved"
    assert result.cost.seconds > 0
    assert result.cost.samples >= min(len(forget), len(retain))
    assert result.cost.gradient_evaluations > 0
    assert type(result.model) is type(trained.model)
    assert (result.task, result.recipe, result.factory) == (trained.task, trained.recipe, trained.factory)


@every_member
def test_same_stream_same_weights_whatever_the_ambient_state(name, trained, retain, forget) -> None:
    torch.manual_seed(0)
    one = ready(name).unlearn(trained, retain, forget, rng=Rng(1))
    torch.manual_seed(1)
    ambient = torch.get_rng_state()
    two = ready(name).unlearn(trained, retain, forget, rng=Rng(1))
    assert torch.equal(torch.get_rng_state(), ambient), "the global generator was used"
    assert same(state(one.model), state(two.model))


@every_member
def test_refused_input(name, trained, retain, forget, digits) -> None:
    unlearner = ready(name)
    nobody, strangers = forget.take([]), digits.test.take([0, 1])
    with pytest.raises(BadInput, match="at least one"):
        unlearner.unlearn(trained, retain, nobody, rng=Rng(1))
    with pytest.raises(BadInput, match="at least one"):
        unlearner.unlearn(trained, nobody, forget, rng=Rng(1))
    with pytest.raises(BadInput, match="both sets"):
        unlearner.unlearn(trained, retain, retain.take([3]), rng=Rng(1))
    with pytest.raises(BadInput, match="not trained on"):
        unlearner.unlearn(trained, retain, strangers, rng=Rng(1))


@every_member
def test_a_second_request_follows_the_first(name, trained, retain, forget) -> None:
    first = ready(name).unlearn(trained, retain, forget, rng=Rng(1))
    more = retain.take([5])
    second = ready(name).unlearn(first, retain.without(more.ids), more, rng=Rng(2))
    assert sorted(second.ids) == sorted(set(retain.ids) - set(more.ids))
    with pytest.raises(BadInput, match="not trained on"):
        ready(name).unlearn(first, retain, forget, rng=Rng(1))


@every_member
def test_declaration(name) -> None:
    cls = MEMBERS[name]
    assert catalog.find("unlearners", name) is cls
    assert catalog.name_of(cls) == name
    assert issubclass(cls, Unlearner)
    assert cls.__dataclass_params__.frozen
    assert cls.guarantee in ("exact", "certified", "none")
    assert cls.needs == "" or cls.needs in catalog.members("learners")
    assert cls.about
    assert inspect.getdoc(cls)
    assert "uarantee" in inspect.getdoc(cls) or cls.guarantee != "none", "say what it does not guarantee"
    for row in catalog.document(cls):
        assert row["doc"], f"{name}.{row['name']} has no doc"
        assert row["source"], f"{name}.{row['name']} has no source"
    with pytest.raises(UnknownName):
        catalog.make("unlearners", name, {"no_such_setting": 1})


# A hyper-parameter that is parsed and never read ------------------------------------------------------------------------

OTHER: dict[tuple[str, str], Any] = {
    ("gradient_ascent", "clip"): 1e-3,
    ("single_gradient", "lr"): 0.7,
    ("single_gradient", "epochs"): 5,
    ("single_gradient", "batch_size"): 7,
    ("influence", "samples"): 20,
    ("influence", "tolerance"): 0.5,
    ("influence", "iterations"): 1,
    ("influence", "memory"): 0.0,
    ("salun", "share"): 0.2,
    ("scrub", "max_epochs"): 1,
    ("scrub", "decay_at"): (1,),
    ("scrub", "forget_batch_size"): 8,
    ("exact_unlearning_k", "lr"): 0.02,
    ("exact_unlearning_k", "epochs"): 1,
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
    ("features_and_labels", "features"): {"replace": "features", "features": (27,)},
    ("features_and_labels", "rate"): {"order": "first"},
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
    if entry.name == "batch_size":
        return 8
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
def test_every_field_is_read(name, field, trained, retain, forget) -> None:
    cls = MEMBERS[name]
    entry = next(entry for entry in dataclasses.fields(cls) if entry.name == field)
    common = {"epochs": 3, "batch_size": 40} if "momentum" in catalog.settings_of(cls()) else {}
    base = {**common, **BITES.get(name, {}), **BASE.get((name, field), {})}
    other = {field: other_value(name, entry, typing.get_type_hints(cls)[field])}
    one = cls(**base).unlearn(trained, retain, forget, rng=Rng(1))
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


def test_state_leaks_from_one_method_to_the_next(trained_for, retain, forget) -> None:
    """All methods in a row from one model, then in the other order: each gives what it gives alone."""
    results: dict[str, list[dict[str, Tensor]]] = {name: [] for name in MEMBERS}
    for order in (sorted(MEMBERS), sorted(MEMBERS, reverse=True)):
        for name in order:
            trained = trained_for(MEMBERS[name])
            results[name].append(state(ready(name).unlearn(trained, retain, forget, rng=Rng(1)).model))
    assert all(same(first, second) for first, second in results.values())


def test_weights_that_are_not_finite_are_an_error_not_a_score(trained_for, retain, forget) -> None:
    with pytest.raises(BadInput, match="not finite"):
        MEMBERS["gradient_ascent"](lr=1e30).unlearn(trained_for(Unlearner), retain, forget, rng=Rng(1))


def test_a_copy_of_the_model_is_what_changes(trained_for, retain, forget) -> None:
    """The contract holds for a careless method too: the base hands out a copy."""

    @dataclasses.dataclass(frozen=True)
    class Careless(Unlearner):
        def update(self, model, trained, retain, forget, *, rng, meter) -> None:
            for parameter in model.parameters():
                parameter.data.zero_()

    trained = trained_for(Unlearner)
    before = copy.deepcopy(state(trained.model))
    result = Careless().unlearn(trained, retain, forget, rng=Rng(1))
    assert same(before, state(trained.model))
    assert not any(parameter.any() for parameter in result.model.parameters())
