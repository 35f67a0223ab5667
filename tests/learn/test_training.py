"""The training loop against an independent one; interrupted runs end in the same bits."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Checkpoint, Meter, batch_sizes, precision, shuffled, train
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe, rate
from palimpsest.models.base import Model
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.types import Examples

N = 45
TASK = Classification(3, (1, 8, 8), (0.5,), (0.25,), (torch.zeros(()), torch.ones(())), "image")
RECIPE = Recipe(epochs=4, batch_size=11, lr=0.05, channels_last=False)  # the last batch is one record too many


@dataclass(frozen=True)
class Small(Model):
    """Everything that has state or chance in it: convolution, batch norm, dropout."""

    dropout: float = 0.3

    def network(self, task: Classification) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(self.dropout), nn.Flatten(),
            nn.Linear(256, task.classes),
        )  # fmt: skip


@pytest.fixture(scope="module")
def records() -> Examples:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, 1, 8, 8), dtype=torch.uint8, generator=rng)
    targets = torch.arange(N) % 3
    pixels[targets == 1, :, :4] //= 2
    pixels[targets == 2, :, 4:] //= 2
    return Examples.of({"image": pixels}, targets, [f"r{i}" for i in range(N)])


def fit(records: Examples, recipe: Recipe, seed: int = 0, dropout: float = 0.3, **more: Any) -> Trained:
    return Plain().fit(TASK, records, recipe, Small(dropout), rng=Rng(seed), **more)


def same(one: Trained, other: Trained) -> bool:
    a, b = one.model.state_dict(), other.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(records: Examples) -> None:
    first = fit(records, RECIPE)
    torch.rand(7)  # the global generator has no part in it
    assert same(first, fit(records, RECIPE))
    assert not same(first, fit(records, RECIPE, seed=1))


def test_training_leaves_the_global_generator_and_the_records_as_they_were(records: Examples) -> None:
    state, pixels = torch.random.get_rng_state(), records.inputs["image"].clone()
    fit(records, replace(RECIPE, augment="crop+flip", epochs=1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(records.inputs["image"], pixels)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_loop_equals_an_independent_one(records: Examples, optimizer: Any) -> None:
    """Order, schedule, loss with label smoothing, decay and update, with none of the package's loop."""
    recipe = replace(RECIPE, optimizer=optimizer, epochs=3, lr=0.02, weight_decay=0.03, label_smoothing=0.2)
    trained = Plain().fit(TASK, records, recipe, Mlp(width=8, layers=2), rng=Rng(5))

    model = Mlp(width=8, layers=2).build(TASK, Rng(5))
    inputs, targets = records.inputs["image"].double() / 255, F.one_hot(records.targets, 3).double() * 0.8 + 0.2 / 3
    weights = [p.detach().double().requires_grad_() for p in model.parameters()]
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    step = 0
    for epoch in range(3):
        order = torch.randperm(N, generator=Rng(5).child("epoch", epoch).torch())
        for batch in (order[:11], order[11:22], order[22:33], order[33:]):
            x = ((inputs[batch] - 0.5) / 0.25).flatten(1)
            logits = (x @ weights[0].T + weights[1]).relu() @ weights[2].T + weights[3]
            loss = -(targets[batch] * logits.log_softmax(1)).sum(1).mean()
            gradients = torch.autograd.grad(loss, weights)
            lr = 0.02 * one_cycle(step, 12)
            step += 1
            with torch.no_grad():
                for w, g, m, v in zip(weights, gradients, first, second, strict=True):
                    if optimizer == "sgd":
                        m.mul_(0.9).add_(g + 0.03 * w)
                        w -= lr * m
                    else:
                        w *= 1 - lr * 0.03
                        m.mul_(0.9).add_(0.1 * g)
                        v.mul_(0.999).add_(0.001 * g * g)
                        w -= lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    for found, expected in zip(trained.model.parameters(), weights, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-6)


def one_cycle(step: int, steps: int) -> float:
    rise = steps / 5
    return min(1.0, (step + 1) / rise) if step < rise else (steps - step) / (steps - rise)


def test_the_rate_of_every_step_is_the_schedules(records: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = Meter.step

    def spy(self: Meter, loss: Tensor, optimizer: torch.optim.Optimizer, samples: int) -> None:
        seen.append(optimizer.param_groups[0]["lr"])
        step(self, loss, optimizer, samples)

    monkeypatch.setattr(Meter, "step", spy)
    fit(records, replace(RECIPE, schedule="cosine"))
    assert seen == [rate(replace(RECIPE, schedule="cosine"), index, 16) for index in range(16)]


class Killed(Exception):
    """Stands for the end of the process."""


def killed_after(updates: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on the process dies after so many updates; returns the list in which they are counted."""
    step, seen = Meter.step, []

    def deadly(self: Meter, loss: Tensor, optimizer: torch.optim.Optimizer, samples: int) -> None:
        if len(seen) == updates:
            raise Killed
        seen.append(samples)
        step(self, loss, optimizer, samples)

    monkeypatch.setattr(Meter, "step", deadly)
    return seen


VARIANTS = {
    "sgd": RECIPE,
    "augmented": replace(RECIPE, augment="crop+flip", label_smoothing=0.1, schedule="cosine"),
    "adamw": replace(RECIPE, optimizer="adamw", lr=0.01, schedule="step"),
    "channels last": replace(RECIPE, channels_last=True),
    "no momentum": replace(RECIPE, momentum=0.0, schedule="constant"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("updates", [2, 4, 9, 15])
def test_a_run_that_dies_ends_in_the_same_bits(
    records: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, updates: int
) -> None:
    recipe = VARIANTS[variant]
    whole = fit(records, recipe)
    checkpoint = Checkpoint(Store(tmp_path), {"run": variant}, every_seconds=0.0)
    with monkeypatch.context() as dying:
        killed_after(updates, dying)
        with pytest.raises(Killed):
            fit(records, recipe, checkpoint=checkpoint)
    with monkeypatch.context() as counting:
        seen = killed_after(1000, counting)
        resumed = fit(records, recipe, checkpoint=Checkpoint(Store(tmp_path), {"run": variant}, every_seconds=0.0))
    assert same(whole, resumed)
    assert len(seen) == 16 - 4 * (updates // 4), "did not go on where it was"
    assert (resumed.cost.samples, resumed.cost.gradient_evaluations) == (4 * N, 16)
    assert list(Store(tmp_path).entries()) == [], "the checkpoint is left behind"


def test_dying_twice_is_no_worse(records: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(records, RECIPE)
    checkpoint = Checkpoint(Store(tmp_path), {}, every_seconds=0.0)
    for updates in (5, 6):
        with monkeypatch.context() as dying:
            killed_after(updates, dying)
            with pytest.raises(Killed):
                fit(records, RECIPE, checkpoint=checkpoint)
    (entry,) = checkpoint.store.entries()
    assert checkpoint.store.read(entry.kind, entry.key).info["epoch"] == 2  # type: ignore[union-attr]
    assert same(whole, fit(records, RECIPE, checkpoint=checkpoint))


def test_a_checkpoint_can_be_purged_by_record(
    records: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(Store(tmp_path), {}, every_seconds=0.0)
    killed_after(5, monkeypatch)
    with pytest.raises(Killed):
        fit(records, RECIPE, checkpoint=checkpoint)
    assert checkpoint.store.purge(["someone else"]) == []
    assert [entry.kind for entry in checkpoint.store.purge(["r7"])] == ["checkpoint"]


def test_checkpoints_are_not_written_more_often_than_asked(
    records: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    killed_after(15, monkeypatch)
    with pytest.raises(Killed):
        fit(records, RECIPE, checkpoint=Checkpoint(store, {}, every_seconds=3600.0))
    assert list(store.entries()) == []


@settings(max_examples=60)
@given(st.integers(2, 400), st.integers(1, 40))
def test_a_pass_has_every_record_once_and_no_tiny_batch(n: int, size: int) -> None:
    some = Examples.of({"x": torch.arange(float(n))[:, None]}, torch.zeros(n), map(str, range(n)))
    batches = list(shuffled(some, size, Rng(n)))
    assert [len(batch) for batch in batches] == batch_sizes(n, size)
    assert sorted(torch.cat([batch.inputs["x"] for batch in batches]).flatten().tolist()) == list(range(n))
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches[-1]) <= size + max(1, size // 8)
    if size > 1:
        assert len(batches[-1]) >= min(n, max(2, size / 8))


def test_the_order_is_the_streams(records: Examples) -> None:
    def order(rng: Rng) -> list[float]:
        return [
            float(value) for batch in shuffled(records, 11, rng) for value in batch.inputs["image"].flatten(1).sum(1)
        ]

    assert order(Rng(0)) == order(Rng(0))
    assert order(Rng(0)) != order(Rng(1))


def test_label_smoothing_and_augmentation_matter(records: Examples) -> None:
    plain = fit(records, RECIPE)
    for change in ({"label_smoothing": 0.2}, {"augment": "flip"}, {"augment": "crop"}, {"weight_decay": 0.1}):
        assert not same(plain, fit(records, replace(RECIPE, **change)))  # type: ignore[arg-type]


def test_channels_last_is_the_same_up_to_rounding(records: Examples) -> None:
    """Without dropout: which entries that drops goes by their order in memory."""
    plain = fit(records, RECIPE, dropout=0.0)
    last = fit(records, replace(RECIPE, channels_last=True), dropout=0.0)
    assert last.model.network[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index, union-attr]
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(last.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


class OnAGpu(nn.Module):
    """Says that its parameters are on a GPU."""

    def parameters(self, recurse: bool = True) -> Any:
        return iter([SimpleNamespace(device=torch.device("cuda"))])


def test_autocast_is_bfloat16_on_a_gpu_where_the_recipe_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch, "autocast", lambda *how: asked.append(how) or nullcontext())
    precision(OnAGpu(), replace(RECIPE, autocast=False))
    precision(nn.Linear(1, 1), RECIPE)
    assert asked == []
    precision(OnAGpu(), replace(RECIPE, autocast=True))
    assert asked == [("cuda", torch.bfloat16)]


def test_autocast_does_nothing_without_a_gpu(records: Examples) -> None:
    assert same(fit(records, RECIPE), fit(records, replace(RECIPE, autocast=False)))


def test_no_epochs_leave_the_initial_weights(records: Examples) -> None:
    trained = fit(records, replace(RECIPE, epochs=0))
    fresh = Small().build(TASK, Rng(0)).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in trained.model.state_dict().items())
    assert trained.cost.samples == 0


def test_the_initial_weights_are_kept_and_are_no_view_of_the_trained_ones(records: Examples) -> None:
    trained = fit(records, RECIPE)
    fresh = Small().build(TASK, Rng(0)).state_dict()
    initial = trained.initial()
    assert initial.keys() == fresh.keys()
    assert all(torch.equal(initial[name], fresh[name]) for name in fresh)
    assert not torch.equal(initial["network.0.weight"], trained.model.state_dict()["network.0.weight"])
    with pytest.raises(BadInput, match="initial weights: got none kept"):
        replace(trained, kept={}).initial()


def test_frozen_parameters_stay(records: Examples) -> None:
    model = Small().build(TASK, Rng(0))
    network = model.network
    network[0].weight.requires_grad_(False)  # type: ignore[index, union-attr]
    before = network[0].weight.clone()  # type: ignore[index, union-attr]
    train(model, TASK, records, replace(RECIPE, weight_decay=0.1), rng=Rng(0), meter=Meter())
    assert torch.equal(network[0].weight, before)  # type: ignore[index, union-attr]


def test_one_class_or_none_is_refused(records: Examples) -> None:
    with pytest.raises(BadInput, match="got 15 records in 1 classes, expected two records or more in two classes"):
        fit(records.take(records.targets == 0), RECIPE)
    with pytest.raises(BadInput, match="got 0 records in 0 classes"):
        fit(records.take([]), RECIPE)


def test_images_are_augmented_and_features_are_not() -> None:
    table = Examples.of({"x": torch.randn(8, 3)}, torch.arange(8) % 2, map(str, range(8)))
    task = Classification(2, (3,), (0.0,) * 3, (1.0,) * 3, (torch.zeros(3), torch.ones(3)), "x")
    with pytest.raises(BadInput, match=r"recipe\.augment: got crop, expected none, since the records are no images"):
        Plain().fit(task, table, Recipe(epochs=1, augment="crop"), Mlp(), rng=Rng(0))


def test_it_learns(records: Examples) -> None:
    trained = fit(records, replace(RECIPE, epochs=12))
    assert not trained.model.training
    assert TASK.error(trained.model, records.batch()).mean() < 0.1
    assert TASK.error(Small().build(TASK, Rng(0)).eval(), records.batch()).mean() > 0.4


def test_a_meter_counts_updates_and_time() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    meter = Meter(before=10.0)
    meter.step((weight * 3).sum(), torch.optim.SGD([weight], 0.5), samples=7)
    meter.count(2)
    assert weight.item() == -0.5
    assert (meter.cost.samples, meter.cost.gradient_evaluations) == (9, 2)
    assert 10.0 < meter.cost.seconds < 11.0
