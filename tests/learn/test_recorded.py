"""The recorded run is the run: bit for bit that of `plain`, and whole after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from palimpsest.errors import BadInput
from palimpsest.learn._trajectory import Trajectory, flat_weights, gibibytes
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe, rate
from palimpsest.learn.recorded import Recorded
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.types import Examples, Split

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.05)  # 49 records: batches of 16, 16 and 17


@pytest.fixture(scope="module")
def few(digits: Split) -> Examples:
    return digits.train.take(list(range(49)))


def fit(
    task: Classification, records: Examples, recipe: Recipe = RECIPE, factory: Model | None = None, **more: Any
) -> Trained:
    return Recorded().fit(task, records, recipe, factory or ConvNet(width=2), rng=Rng(3), **more)


@pytest.mark.parametrize("factory", [Linear(), ConvNet(width=2)], ids=["linear", "convnet"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_weights_are_those_of_plain_bit_for_bit(
    factory: Model, optimizer: Any, few: Examples, digits_task: Classification
) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, augment="crop")
    one, two = fit(digits_task, few, recipe, factory), Plain().fit(digits_task, few, recipe, factory, rng=Rng(3))
    states = one.model.state_dict(), two.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert one.cost.samples == two.cost.samples


def test_every_step_is_in_the_record(few: Examples, digits_task: Classification) -> None:
    """From the recorded weights, records and rate of a step follow the next weights."""
    recipe = replace(RECIPE, momentum=0.0, weight_decay=0.1, schedule="cosine")
    trained = fit(digits_task, few, recipe, Linear())
    run = Trajectory.of(trained, "test")
    assert len(run) == 9
    assert run.origin == "trained"
    assert [len(rows) for rows in run.rows] == [16, 16, 17] * 3
    assert run.rates.tolist() == [rate(recipe, step, 9) for step in range(9)]
    for epoch in range(3):
        seen = torch.cat(run.rows[3 * epoch : 3 * epoch + 3])
        assert sorted(run.ids[seen.numpy()].tolist()) == sorted(few.ids.tolist()), "every record once an epoch"
    assert torch.equal(run.weights[0], torch.cat([value.flatten() for value in list(trained.initial().values())[2:]]))
    assert torch.equal(run.weights[-1], flat_weights(trained.model))
    places = {name: at for at, name in enumerate(few.ids.tolist())}
    for step, rows in enumerate(run.rows):
        batch = few.batch(torch.tensor([places[name] for name in run.ids[rows.numpy()].tolist()]))
        x = ((batch.inputs["image"].double() - 0.5) / 0.25).flatten(1)
        before = run.weights[step].double()
        weight, bias = before[:640].view(10, 64), before[640:]
        pull = (x @ weight.T + bias).softmax(1) - torch.nn.functional.one_hot(batch.targets, 10)
        slope = torch.cat([(pull.T @ x / len(batch)).flatten(), pull.mean(0)]) + 0.1 * before
        torch.testing.assert_close(run.weights[step + 1].double(), before - run.rates[step] * slope, rtol=0, atol=1e-6)


def test_the_record_survives_a_stop(
    few: Examples, digits_task: Classification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(digits_task, few)
    checkpoint = Checkpoint(Store(tmp_path / "store"), {"a": "key"}, every_seconds=0.0)
    step, calls = Meter.step, []

    def dying(self: Meter, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        step(self, *args)

    monkeypatch.setattr(Meter, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        fit(digits_task, few, checkpoint=checkpoint)
    resumed = fit(digits_task, few, checkpoint=checkpoint)
    assert len(calls) == 8 + 3, "went on from the second epoch's end"
    assert resumed.kept.keys() == whole.kept.keys()
    assert all(torch.equal(value, whole.kept[name]) for name, value in resumed.kept.items())


def test_a_record_that_is_too_large_is_refused_before_training(few: Examples, digits_task: Classification) -> None:
    needed = gibibytes(9, 650, 147)
    assert needed == (10 * 650 * 4 + 8 * 165) / 2**30
    for memory, fits in ((needed, True), (0.999 * needed, False)):
        model, learner = Linear().build(digits_task, Rng(0)), Recorded(memory=memory)
        if fits:
            learner.check(model, len(few), RECIPE)
        else:
            with pytest.raises(BadInput, match=r"GiB \(9 steps of 650 weights\)"):
                learner.check(model, len(few), RECIPE)
    with pytest.raises(BadInput, match=r"recorded.memory: got a record of 5.* expected at most 2 GiB"):
        fit(digits_task, few, replace(RECIPE, epochs=30000), Mlp(width=64))


def test_no_epochs_leave_an_empty_record(few: Examples, digits_task: Classification) -> None:
    trained = fit(digits_task, few, replace(RECIPE, epochs=0), Linear())
    run = Trajectory.of(trained, "test")
    assert (len(run), len(run.ids), len(run.weights)) == (0, 0, 1)


def test_kept_tensors_read_back_are_the_run(few: Examples, digits_task: Classification, tmp_path: Path) -> None:
    """Through the store, which holds tensors only; ids with any letters in them."""
    odd = replace(few, ids=few.ids.copy().astype("<U40"))
    odd.ids[:3] = ['a "quoted"\nname', "häßlich/号", ""]
    trained = fit(digits_task, odd, factory=Linear())
    store = Store(tmp_path / "store")
    store.put("model", {"a": 1}, trained.kept, {}, [])
    found = store.get("model", {"a": 1})
    assert found is not None
    run = Trajectory.of(replace(trained, kept=found.tensors), "test")
    again = run.kept()
    assert all(torch.equal(value, again[name]) for name, value in found.tensors.items() if name in again)
    assert set(odd.ids.tolist()) == set(run.ids.tolist())
