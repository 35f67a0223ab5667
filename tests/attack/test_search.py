"""The engine against closed forms: a linear model's best bounded input is a corner of its box."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from palimpsest.attack import search as engine
from palimpsest.attack.search import ball, prepare, search
from palimpsest.errors import BadInput
from palimpsest.rng import Rng

ZERO, ONE = torch.zeros(()), torch.ones(())


def cross_entropy(outputs: Tensor, aims: Tensor) -> Tensor:
    return F.cross_entropy(outputs, aims, reduction="none")


def reached(outputs: Tensor, aims: Tensor, loss: Tensor) -> Tensor:
    return outputs.argmax(1) == aims


def run(model, inputs, aims, loss=cross_entropy, **changes):
    options = {"low": ZERO, "high": ONE, "epsilon": 0.1, "step_size": 0.02, "steps": 12, "rng": Rng(0)}
    return search(model, inputs, aims, loss, **{**options, **changes})


@pytest.fixture
def linear() -> nn.Module:
    with Rng(1).ambient():
        return nn.Linear(6, 2)


@pytest.fixture
def convolutional() -> nn.Module:
    """Batch norm with statistics, in training mode, in float64 so that batches of any size agree."""
    with Rng(2).ambient():
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        ).double()
        for _ in range(3):
            model(torch.rand(16, 1, 4, 4, dtype=torch.float64))
    return model.train()


def images(n: int, shape=(1, 4, 4), dtype=torch.float64) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


@pytest.mark.parametrize("step_rule", ["constant", "decaying"])
@pytest.mark.parametrize("epsilon", [0.1, 8 / 255, float("inf")])
def test_the_optimum_on_a_linear_model_is_the_corner(linear, epsilon, step_rule):
    inputs, aims = images(20, (6,), torch.float32), torch.arange(20) % 2
    found = run(linear, inputs, aims, epsilon=epsilon, steps=60, step_rule=step_rule)
    lower, upper = ball(inputs, torch.full((20,), epsilon, dtype=torch.float64), ZERO, ONE)
    toward = (linear.weight[1] - linear.weight[0]) * (2 * aims[:, None] - 1)
    corner = torch.where(toward > 0, upper, lower)
    assert torch.equal(found.inputs, corner)
    assert torch.allclose(found.loss, cross_entropy(linear(corner), aims))


def test_features_have_their_own_widths_and_records_their_own_budgets(linear):
    low, high = torch.tensor([0.0, -5, 0, 0, 2, 0]), torch.tensor([1.0, 5, 100, 0, 3, 1])
    inputs = low + images(8, (6,), torch.float32) * (high - low)
    epsilon = torch.tensor([0.0, 0.05, 0.1, 0.2] * 2, dtype=torch.float64)
    box = {"low": low, "high": high, "epsilon": epsilon}

    def margin(outputs: Tensor, aims: Tensor) -> Tensor:  # linear, so no certainty makes its gradient vanish
        return outputs[:, 0] - outputs[:, 1]

    found = run(linear, inputs, torch.ones(8), margin, steps=60, **box)
    moved = (found.inputs.double() - inputs.double()).abs()
    assert (moved <= epsilon[:, None] * (high - low).double()).all()
    assert ((found.inputs >= low) & (found.inputs <= high)).all()
    assert torch.equal(moved[epsilon == 0], torch.zeros(2, 6, dtype=torch.float64))
    inside = ((found.inputs > low) & (found.inputs < high)) | (low == high)
    assert torch.allclose(moved[inside], (epsilon[:, None] * (high - low).double())[inside], rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8),
    st.one_of(st.floats(0, 1), st.sampled_from([8 / 255, 0.25, 1 / 3, float("inf")])),
)
def test_budget_and_box_are_exact_in_float32(values, epsilon):
    inputs = torch.tensor([values], dtype=torch.float32)
    radius = torch.tensor([epsilon], dtype=torch.float64)
    for edge in ball(inputs, radius, ZERO, ONE):
        assert ((edge.double() - inputs.double()).abs() <= radius).all()
        assert ((edge >= 0) & (edge <= 1)).all()
    lower, upper = ball(inputs, radius, ZERO, ONE)
    assert (lower <= inputs).all()
    assert (inputs <= upper).all()
    assert (upper - torch.clamp(inputs + epsilon, max=1)).abs().max() < 2e-7  # no more is given away than rounding asks


def test_the_best_iterate_is_kept_and_a_restart_never_hurts(convolutional):
    inputs, aims = images(9), torch.arange(9) % 3
    wild = {"epsilon": 0.5, "step_size": 0.4, "steps": 7, "start": "record"}
    found = run(convolutional, inputs, aims, **wild)
    frozen = copy.deepcopy(convolutional).eval()
    assert torch.allclose(cross_entropy(frozen(found.inputs), aims), found.loss)
    assert (found.loss <= cross_entropy(frozen(inputs), aims)).all()
    once, thrice = (run(convolutional, inputs, aims, **{**wild, "start": "random"}, restarts=r) for r in (1, 3))
    assert (thrice.loss <= once.loss).all()
    assert (thrice.loss < once.loss).any()
    assert thrice.evaluations == 3 * once.evaluations == 3 * 9 * 7


def test_the_model_is_left_as_it_was(convolutional):
    convolutional[0].weight.requires_grad_(False)
    before = copy.deepcopy(convolutional.state_dict())
    flags = [(p.requires_grad, p.grad, p._version) for p in convolutional.parameters()]
    run(convolutional, images(5), torch.zeros(5, dtype=torch.long))
    assert convolutional.training
    assert all(module.training for module in convolutional.modules())
    assert [(p.requires_grad, p.grad, p._version) for p in convolutional.parameters()] == flags
    assert all(torch.equal(value, before[name]) for name, value in convolutional.state_dict().items())


def test_compaction_changes_nothing_for_the_records_that_stay(convolutional):
    inputs, aims = images(40), torch.arange(40) % 3
    options = {"epsilon": 0.05, "step_size": 0.01, "steps": 11}
    everything = run(convolutional, inputs, aims, **options)
    for batch, every in ((40, 1), (7, 1), (7, 3), (1, 5)):
        found = run(convolutional, inputs, aims, stop=reached, batch_size=batch, check_every=every, **options)
        stayed = ~found.reached
        assert 0 < stayed.sum() < 40
        assert torch.allclose(found.inputs[stayed], everything.inputs[stayed], atol=1e-12)
        assert (found.steps[stayed] == 11).all()
        assert found.evaluations == int(found.steps.sum()) < 40 * 11
        answers = copy.deepcopy(convolutional).eval()(found.inputs).argmax(1)
        assert torch.equal(answers == aims, found.reached)


def test_the_batch_size_changes_nothing(convolutional):
    inputs, aims = images(10), torch.arange(10) % 3
    found = [run(convolutional, inputs, aims, batch_size=size).inputs for size in (3, 10)]
    assert torch.allclose(*found, atol=1e-12)


def test_the_stream_decides_the_start(convolutional):
    inputs, aims = images(6), torch.zeros(6, dtype=torch.long)
    one, same, other = (run(convolutional, inputs, aims, steps=1, rng=Rng(seed)).inputs for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_evaluations_are_the_passes_executed(convolutional):
    passed = []

    def counted(outputs: Tensor, aims: Tensor) -> Tensor:
        if outputs.requires_grad:
            passed.append(len(outputs))
        return cross_entropy(outputs, aims)

    found = run(convolutional, images(10), torch.arange(10) % 3, counted, stop=reached, batch_size=4, restarts=2)
    assert found.evaluations == sum(passed) > 0


class Reads(TorchDispatchMode):
    """Counts values that the host reads, which on a GPU makes it wait."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "local_scalar" in func.name() or "nonzero" in func.name()
        return func(*args, **(kwargs or {}))


def test_the_host_reads_nothing_while_it_steps(convolutional):
    inputs, aims = images(4), torch.zeros(4, dtype=torch.long)
    ready = prepare(convolutional, inputs)

    def reads(steps: int, **changes) -> int:
        with Reads() as mode:
            run(ready, inputs, aims, steps=steps, **changes)
        return mode.count

    assert reads(5) == reads(50)
    checked = [reads(steps, stop=lambda a, b, c: c < -1, check_every=5) for steps in (5, 50)]
    assert checked[0] < checked[1] <= checked[0] + 9  # one for each further look


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"steps": 0}, "steps"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": float("nan")}, "step_size"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"restarts": 0}, "restarts"),
        ({"high": torch.tensor(0.2), "epsilon": 0.01}, "inputs"),
    ],
)
def test_bad_input_is_named(linear, changes, names):
    with pytest.raises(BadInput, match=names):
        run(linear, images(3, (6,), torch.float32), torch.zeros(3, dtype=torch.long), **changes)


@pytest.mark.parametrize(
    ("contiguous", "last", "chosen"),
    [(1.0, 2.0, "contiguous"), (0.95, 1.0, "channels_last"), (2.0, 1.0, "channels_last")],
)
def test_the_layout_is_the_faster_in_a_timed_trial_that_is_run_once(monkeypatch, contiguous, last, chosen) -> None:
    """A close call goes to channels_last, and the answer is remembered for the same shapes."""
    timed: list[str] = []

    def seconds(model: nn.Module, sample: Tensor, repeats: int = 2) -> float:
        timed.append("last" if sample.is_contiguous(memory_format=torch.channels_last) else "contiguous")
        return last if timed[-1] == "last" else contiguous

    monkeypatch.setattr(engine, "_seconds", seconds)
    monkeypatch.setattr(engine, "_CHOSEN", {})
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    sample = torch.rand(4, 3, 8, 8)
    for _ in range(2):
        ready = prepare(model, sample)
        assert ready.layout == chosen
    assert sorted(timed) == ["contiguous", "last"]
    weight = next(ready.model.parameters())
    assert weight.is_contiguous(memory_format=torch.channels_last) == (chosen == "channels_last")
    assert prepare(model, sample, "contiguous").layout == "contiguous"
    assert len(timed) == 2


class Gated(nn.Module):
    """Answers with what a side input lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return self.weight * x * gate


@pytest.mark.parametrize("batch_size", [2, 3, 128])
@pytest.mark.parametrize("stop", [None, lambda outputs, aims, loss: loss < 1e-3])
def test_a_side_input_travels_with_its_record(batch_size, stop) -> None:
    """Each record reaches its aim where its own gate is open, and stays as it began where it is shut."""
    gates = (torch.arange(7 * 16).view(7, 1, 4, 4) % torch.arange(2, 9).view(7, 1, 1, 1) == 0).double()
    clean, aims = images(7), images(7).flip(0)
    found = run(
        Gated().double(),
        clean,
        aims,
        lambda outputs, wanted: (outputs - wanted * (outputs != 0)).square().flatten(1).sum(1),
        epsilon=1.0,
        step_size=0.01,
        steps=120,
        start="record",
        batch_size=batch_size,
        stop=stop,
        sides=gates,
    )
    opened = gates.bool()
    assert (found.inputs - aims)[opened].abs().max() < 0.04
    assert torch.equal(found.inputs[~opened], clean[~opened])


def test_sides_are_one_per_record() -> None:
    with pytest.raises(BadInput, match="sides: got 2 of them, expected 3"):
        run(Gated(), images(3, dtype=torch.float32), images(3), sides=torch.ones(2, 1, 4, 4))
