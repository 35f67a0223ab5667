"""What every unlearner of the catalog must pass, whatever its idea."""

from __future__ import annotations

import copy
import dataclasses
import inspect

import numpy as np
import pytest
import torch

from palimpsest import catalog
from palimpsest.errors import BadInput, UnknownName
from palimpsest.rng import Rng
from palimpsest.unlearn.base import Unlearner
from tests.contract.methods import MEMBERS, every_member, ready, same, state


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
def test_what_comes_out(name, trained, unlearned, retain, forget) -> None:
    result = unlearned(name)
    assert sorted(result.ids) == sorted(set(trained.ids) - set(forget.ids))
    assert not any(module.training for module in result.model.modules())
    assert all(p.requires_grad and p.grad is None for p in result.model.parameters())
    weights = dict(trained.model.named_parameters())
    assert any(not torch.equal(value, weights[key]) for key, value in result.model.named_parameters()), "nothing moved"
    assert result.cost.seconds > 0
    assert result.cost.samples >= min(len(forget), len(retain))
    assert result.cost.gradient_evaluations > 0
    assert isinstance(result.cost.peak_memory, int)
    assert result.cost.peak_memory >= 0
    assert type(result.model) is type(trained.model)
    assert (result.task, result.recipe, result.factory) == (trained.task, trained.recipe, trained.factory)


@every_member
def test_same_stream_same_weights_whatever_the_ambient_state(name, trained, unlearned, retain, forget) -> None:
    one = unlearned(name)  # made after torch.manual_seed(0)
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
def test_a_second_request_follows_the_first(name, unlearned, retain, forget) -> None:
    first = unlearned(name)
    more = retain.take([5])
    second = ready(name).unlearn(first, retain.without(more.ids), more, rng=Rng(2))
    assert sorted(second.ids) == sorted(set(retain.ids) - set(more.ids))
    with pytest.raises(BadInput, match="not trained on"):
        ready(name).unlearn(first, retain, forget, rng=Rng(1))


@every_member
def test_single_records_and_classes_are_forgotten_in_turn(name, unlearned, retain, forget) -> None:
    """Three requests: class 0 and two more, one record, then the rest of class 1: every one moves the weights and is paid for."""
    last, left = unlearned(name), retain
    for turn, more in enumerate((retain.take([5]), retain.take(retain.targets.numpy() == 1)), 2):
        left = left.without(more.ids)
        then = ready(name).unlearn(last, left, more.without(np.setdiff1d(more.ids, last.ids)), rng=Rng(turn))
        assert sorted(then.ids) == sorted(left.ids)
        assert not same(state(last.model), state(then.model)), "nothing moved"
        assert all(bool(torch.isfinite(value).all()) for value in then.model.parameters())
        assert then.cost.samples > 0
        last = then


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


def test_state_leaks_from_one_method_to_the_next(trained_for, unlearned, parted) -> None:
    """All methods in a row from one model, then in the other order: each gives what it gives alone."""
    first = {name: state(unlearned(name).model) for name in sorted(MEMBERS)}
    for name in sorted(MEMBERS, reverse=True):
        second = ready(name).unlearn(trained_for(MEMBERS[name]), *parted(MEMBERS[name]), rng=Rng(1))
        assert same(first[name], state(second.model)), name


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
