"""SISA: exact, bit for bit; cheap as the formula says; records of an owner in one place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from palimpsest.errors import BadInput
from palimpsest.learn import sharded
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Checkpoint
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.learn.sharded import Sharded
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import predict
from palimpsest.types import Examples
from palimpsest.unlearn.retrain import Retrain
from palimpsest.unlearn.sisa import Sisa

LEARNER = Sharded(shards=3, slices=2)
RECIPE = Recipe(epochs=3, batch_size=16)


def fit(task, records, learner=LEARNER, factory=None, recipe=RECIPE, seed: int = 0) -> Trained:
    return learner.fit(task, records, recipe, factory or ConvNet(width=2), rng=Rng(seed))


def equal(one: Trained, two: Trained) -> bool:
    states = (one.model.state_dict(), two.model.state_dict())
    kept = one.kept.keys() == two.kept.keys() and all(torch.equal(v, two.kept[k]) for k, v in one.kept.items())
    return kept and all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.fixture(scope="module")
def few(digits) -> Examples:
    return digits.train.take(list(range(150)))


@pytest.fixture(scope="module")
def trained(few, digits_task) -> Trained:
    return fit(digits_task, few)


def test_the_first_update_is_one_step_by_hand_in_float64(few, digits_task) -> None:
    """One shard, one slice, one full batch of softmax regression: when training, and again when unlearning."""
    learner = Sharded(shards=1, slices=1)
    recipe = Recipe(epochs=1, batch_size=999, lr=0.5, momentum=0.9, weight_decay=0.1, schedule="constant")
    trained = fit(digits_task, few, learner, Linear(), recipe)
    weight, bias = (trained.initial()[f"members.0.network.1.{name}"].double() for name in ("weight", "bias"))
    retain, forget = few.take(list(range(20, 150))), few.take(list(range(20)))
    unlearned = Sisa().unlearn(trained, retain, forget, rng=Rng(9))
    for result, records in ((trained, few), (unlearned, retain)):
        batch = records.batch()
        inputs = ((batch.inputs["image"].double() - 0.5) / 0.25).flatten(1)
        logits = inputs @ weight.T + bias
        error = logits.softmax(1)
        error[torch.arange(len(records)), batch.targets] -= 1
        slopes = error.T @ inputs / len(records), error.mean(0)
        (member,) = result.model.members
        for parameter, old, slope in zip(member.parameters(), (weight, bias), slopes, strict=True):
            step = -0.5 * (slope + 0.1 * old)
            assert float((parameter.detach().double() - old - step).norm() / step.norm()) < 1e-5


@pytest.mark.parametrize("gone", [[7], [1, 2, 3], list(range(0, 60, 2))], ids=["one", "three", "thirty"])
def test_what_remains_is_what_training_without_them_gives(gone, trained, few, digits_task) -> None:
    forget, retain = few.take(gone), few.without(few.ids[gone])
    result = Sisa().unlearn(trained, retain, forget, rng=Rng(99))
    assert equal(result, fit(digits_task, retain))
    assert not equal(result, trained)


def test_one_request_after_the_other_is_as_exact(trained, few, digits_task) -> None:
    result, left = trained, few
    for name in few.ids[[5, 90, 33]]:
        result = Sisa().unlearn(result, left.without([name]), left.only([name]), rng=Rng(1))
        left = left.without([name])
    assert equal(result, fit(digits_task, left))


def test_untouched_shards_are_bit_identical_and_cost_nothing(trained, few) -> None:
    shards, slices = LEARNER.places(few)
    name = few.ids[(shards == 1) & (slices == 1)][0]
    result = Sisa().unlearn(trained, few.without([name]), few.only([name]), rng=Rng(1))
    old, new = (dict(t.model.members[0].state_dict()) for t in (trained, result))
    assert all(torch.equal(value, new[key]) for key, value in old.items())
    assert result.cost.samples == LEARNER.epochs(RECIPE) * (int((shards == 1).sum()) - 1)


def test_the_cost_of_one_record_is_the_papers(digits_task, digits) -> None:
    """(1/S)(2/3 + 1/(3R)) of training the ensemble, on average over the records, counted in samples."""
    learner, recipe = Sharded(shards=4, slices=4), Recipe(epochs=5, batch_size=64)
    shards, slices = learner.places(digits.train)
    sizes = np.array([[((shards == s) & (slices <= r)).sum() for r in range(4)] for s in range(4)])
    whole = learner.epochs(recipe) * sizes.sum()
    costs = [learner.epochs(recipe) * sizes[s, r:].sum() for s, r in zip(shards, slices, strict=True)]
    expected = (2 / 3 + 1 / 12) / 4
    assert abs(np.mean(costs) / whole - expected) < 0.1 * expected
    trained = fit(digits_task, digits.train, learner, Mlp(width=8), recipe)
    assert trained.cost.samples == whole
    one = digits.train.take([3])
    result = Sisa().unlearn(trained, digits.train.without(one.ids), one, rng=Rng(0))
    behind = sum(4 - r for r in [slices[3]])
    assert result.cost.samples == costs[3] - learner.epochs(recipe) * behind


def test_records_of_an_owner_lie_together(few) -> None:
    owned = dataclasses.replace(few, owners=np.array([f"o{i % 7}" for i in range(150)]))
    shards, slices = LEARNER.places(owned)
    for owner in range(7):
        mine = np.arange(150) % 7 == owner
        assert len(set(zip(shards[mine].tolist(), slices[mine].tolist(), strict=True))) == 1
    assert len(set(shards.tolist())) > 1


def test_what_finished_slices_cost_is_not_lost(trained, few, digits_task, tmp_path: Path, monkeypatch) -> None:
    """A run that dies between two slices goes on behind the first, its seconds included."""
    train, slices = sharded.train, []

    def dying(*args, meter, **named) -> None:
        if slices:
            raise KeyboardInterrupt
        slices.append(1)
        meter.before = 1000.0  # as if it had taken so long
        train(*args, meter=meter, **named)

    checkpoint = Checkpoint(Store(tmp_path), {}, every_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(sharded, "train", dying)
        with pytest.raises(KeyboardInterrupt):
            LEARNER.fit(digits_task, few, RECIPE, ConvNet(width=2), rng=Rng(0), checkpoint=checkpoint)
    resumed = LEARNER.fit(digits_task, few, RECIPE, ConvNet(width=2), rng=Rng(0), checkpoint=checkpoint)
    assert equal(resumed, trained)
    assert resumed.cost.seconds > 1000
    spent, whole = resumed.cost, trained.cost
    assert (spent.samples, spent.gradient_evaluations) == (whole.samples, whole.gradient_evaluations)


@pytest.mark.parametrize("aggregate", ["mean", "vote"])
def test_the_members_answers_are_aggregated(aggregate, few, digits_task) -> None:
    made = fit(digits_task, few, Sharded(shards=3, slices=1, aggregate=aggregate))
    single = torch.stack([predict(digits_task, member, few) for member in made.model.members])
    if aggregate == "vote":
        single = torch.nn.functional.one_hot(single.argmax(2), 10).float()
    torch.testing.assert_close(predict(digits_task, made.model, few), single.mean(0), atol=1e-4, rtol=1e-4)


def test_what_cannot_be_sharded(few, digits_task, trained) -> None:
    with pytest.raises(BadInput, match="at most 20"):
        fit(digits_task, few.take(list(range(20))), Sharded(shards=21))
    with pytest.raises(BadInput, match="at least 1"):
        Sharded(slices=0)
    plain = fit(digits_task, few, Plain())
    with pytest.raises(BadInput, match="--learner sharded"):
        Sisa().unlearn(plain, few.without(few.ids[:1]), few.take([0]), rng=Rng(0))
    again = Retrain().unlearn(trained, few.without(few.ids[:1]), few.take([0]), rng=Rng(7))
    assert "slice/0/0/filled" not in again.kept
    assert int(again.kept["root"]) != int(trained.kept["root"])


def test_a_shard_left_empty_has_no_say(few, digits_task) -> None:
    learner = Sharded(shards=3, slices=1)
    shards, _ = learner.places(few)
    made = fit(digits_task, few, learner)
    forget = few.take(shards == 2)
    result = Sisa().unlearn(made, few.take(shards != 2), forget, rng=Rng(0))
    assert result.model.filled.tolist() == [1.0, 1.0, 0.0]
    others = torch.stack([predict(digits_task, result.model.members[s], few) for s in (0, 1)]).mean(0)
    torch.testing.assert_close(predict(digits_task, result.model, few), others, atol=1e-5, rtol=1e-4)


def test_a_shard_of_one_record_trains_nothing_and_has_no_say(few, digits_task) -> None:
    learner = Sharded(shards=3, slices=1)
    shards, _ = learner.places(few)
    made, (alone, *others) = fit(digits_task, few, learner), few.ids[shards == 2].tolist()
    result = Sisa().unlearn(made, few.without(others), few.only(others), rng=Rng(0))
    assert alone in result.ids
    assert result.model.filled.tolist() == [1.0, 1.0, 0.0]
    single = [few.ids[shards == shard].tolist()[0] for shard in range(3)]
    with pytest.raises(BadInput, match="3 records in 3 shards, expected a shard with two records or more"):
        Sisa().unlearn(made, few.only(single), few.without(single), rng=Rng(0))
