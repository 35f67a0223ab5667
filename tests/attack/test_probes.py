"""Probing samples against a softmax-linear model, whose slopes are known, and on digits."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from tests.attack.black_box import SHAPE, UNIT, Asked
from torch import Tensor, nn

from palimpsest.attack.leakage._probes import BlackBox, Probes, random_squares, slopes, zeroth_order
from palimpsest.errors import BadInput
from palimpsest.rng import Rng

STRATEGIES = pytest.mark.parametrize("strategy", [zeroth_order, random_squares])
SHORT = {zeroth_order: {"iterations": 3}, random_squares: {"changes": 30}}
LONG = {zeroth_order: {"iterations": 20}, random_squares: {"changes": 400}}


def probes(strategy: Any, answer: Any, classes: list[int], seed: int = 0, **changes: Any) -> Probes:
    options = {"domain": UNIT, "rng": Rng(seed), **SHORT[strategy], **changes}
    made: Probes = strategy(answer, options.pop("shape", SHAPE), torch.tensor(classes, dtype=torch.long), **options)
    return made


@pytest.mark.parametrize(("scale", "single"), [(1.0, False), (1.0, True), (12.0, True)])
def test_the_slope_is_the_analytic_one(scale: float, single: bool) -> None:
    """From float32 answers too, and where the confidence is so close to 1 that float32 has no digit left of it."""
    model = Asked(scale=scale)
    box = BlackBox((lambda x: model(x).float()) if single else model, SHAPE, (UNIT[0].double(), UNIT[1].double()), 7)
    now = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    now[0] = now[0].round()  # at the domain's edges, where the quotient is one-sided
    wanted, where = torch.arange(30) % 3, torch.stack([torch.randperm(16)[:5] for _ in range(30)])
    found = slopes(box, now, wanted, where, 1e-4)
    assert box.queries == model.records == 30 * 2 * 5
    assert model.largest == 7
    with torch.no_grad():
        posterior = model(now)
    exact = (posterior @ model.weight - model.weight[wanted]).gather(1, where)
    error = (found - exact).abs() / exact.abs().amax(1, keepdim=True)
    assert error[1:].max() < (1e-2 if single else 1e-6)
    assert error[0].max() < 1e-2
    if scale > 1:
        assert (posterior.amax(1) > 1 - 1e-7).any()


@pytest.mark.parametrize("coordinates", [5, 16, 1024])
def test_the_queries_are_those_of_the_formula(coordinates: int) -> None:
    model = Asked(scale=0.1)  # cannot be so confident
    made = probes(zeroth_order, model, [0, 1, 2, 0], iterations=4, tries=3, coordinates=coordinates, at_once=9)
    assert made.queries == model.records == 4 * (1 + 3 * 4 * (2 * min(coordinates, 16) + 1))
    assert model.largest == 9
    assert not made.accepted.any()


def test_every_change_and_every_start_is_one_query() -> None:
    model = Asked(scale=0.1)
    made = probes(random_squares, model, [0, 1, 2, 0], changes=25, tries=3, at_once=3)
    assert made.queries == model.records == 3 * 4 * (1 + 25)
    assert model.largest == 3


@STRATEGIES
def test_the_threshold_is_reached_and_the_rest_is_not_asked(strategy: Any) -> None:
    model = Asked()
    made = probes(strategy, model, [0, 1, 2] * 5, **LONG[strategy])
    assert made.accepted.all()
    assert (made.confidence >= 0.999).all()
    assert made.queries == model.records
    with torch.no_grad():
        again = model(made.inputs)
    assert torch.allclose(again.gather(1, made.classes[:, None])[:, 0], made.confidence, rtol=1e-12)
    lenient = probes(strategy, model, [0, 1, 2] * 5, threshold=0.5, **LONG[strategy])
    assert lenient.queries < 0.5 * made.queries


@STRATEGIES
@pytest.mark.parametrize("shape", [(6,), (4, 5), (2, 3, 5)])
def test_no_query_leaves_the_domain(strategy: Any, shape: tuple[int, ...]) -> None:
    """Features of their own widths, one of which never varies."""
    low, high = torch.zeros(shape[-1]), torch.ones(shape[-1])
    low[:3], high[:3] = torch.tensor([-5.0, 0.1, 2.0]), torch.tensor([7.0, 0.3, 2.0])
    model = Asked((low, high), shape)
    made = probes(strategy, model, [0, 1, 2, 1], domain=(low, high), shape=shape, spread=1.0)
    assert model.within
    assert made.inputs.shape == (4, *shape)
    assert ((made.inputs >= low) & (made.inputs <= high)).all()
    assert (made.inputs[..., 2] == 2).all()
    assert (made.inputs == low).any()


@STRATEGIES
def test_the_stream_and_the_place_decide_a_probe_and_nothing_else_does(strategy: Any) -> None:
    one, same, other = (probes(strategy, Asked(), [0, 1, 2, 1], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.inputs, same.inputs)
    assert one.queries == same.queries
    assert not torch.equal(one.inputs, other.inputs)
    assert not torch.equal(one.inputs[1], one.inputs[3])
    fewer = probes(strategy, Asked(), [0, 1], at_once=5)
    assert torch.allclose(fewer.inputs, one.inputs[:2], atol=1e-6)


@STRATEGIES
def test_the_best_of_all_tries_is_kept(strategy: Any) -> None:
    runs = [probes(strategy, Asked(scale=0.3), [0, 1, 2] * 5, tries=tries, spread=0.5) for tries in (1, 4)]
    assert (runs[1].confidence >= runs[0].confidence).all()
    assert (runs[1].confidence > runs[0].confidence).any()
    assert not runs[1].accepted.any()


@STRATEGIES
@pytest.mark.parametrize("never", [-1e3, -40.0])
def test_a_class_that_is_never_answered_comes_back_as_not_accepted(strategy: Any, never: float) -> None:
    """Answered as 0, and as a share that no input raises to anything."""
    model = Asked()
    model.weight[1] = 0
    model.bias[1] = never
    made = probes(strategy, model, [0, 1, 2, 1], tries=2, **LONG[strategy])
    assert made.accepted.tolist() == [True, False, True, False]
    assert (made.confidence[[1, 3]] < 1e-3).all()
    assert made.inputs.isfinite().all()
    assert model.within


def test_a_first_step_of_zeroth_order_is_the_rate_on_the_coordinates_drawn() -> None:
    def moved(**changes: Any) -> Tensor:
        made = probes(
            zeroth_order,
            Asked(scale=0.1),
            [0] * 6,
            iterations=1,
            tries=1,
            coordinates=5,
            middle=0.5,
            spread=1e-7,
            **changes,
        )
        return (made.inputs - 0.5).abs().flatten(1)

    for step, rate in ((moved(lr=0.1, late_from=0.9), 0.1), (moved(late_lr=0.02, late_from=0.1), 0.02)):
        assert ((step > 1e-5).sum(1) == 5).all()
        assert torch.allclose(step[step > 1e-5], torch.tensor(rate), rtol=1e-4)
    assert bool(((moved() > 1e-5)[0] != (moved() > 1e-5)[1:]).any())


def test_the_steps_of_zeroth_order_are_adams() -> None:
    """With every coordinate drawn, torch's ADAM on the exact gradient makes the same ones."""
    model = Asked(scale=0.3)
    seen: list[Tensor] = []

    def answer(inputs: Tensor) -> Tensor:
        seen.append(inputs.clone())
        return model(inputs)

    domain = (UNIT[0].double(), UNIT[1].double())
    made = probes(zeroth_order, answer, [1], iterations=4, tries=1, domain=domain, lr=0.03)
    point = seen[0].clone().requires_grad_()
    adam = torch.optim.Adam([point], lr=0.03)
    for _ in range(4):
        adam.zero_grad()
        logits = point.flatten(1) @ model.weight.T + model.bias
        torch.nn.functional.cross_entropy(logits, torch.tensor([1])).backward()  # type: ignore[no-untyped-call]
        adam.step()
        point.data.clamp_(0, 1)
    assert torch.allclose(made.inputs, point.detach(), atol=1e-6)
    assert (made.inputs - seen[0]).abs().max() > 0.1


def test_a_try_of_zeroth_order_goes_on_from_the_best_point() -> None:
    seen: list[Tensor] = []
    model = Asked(scale=0.1)

    def answer(inputs: Tensor) -> Tensor:
        seen.append(inputs.clone())
        return model(inputs)

    one = probes(zeroth_order, answer, [1], iterations=5, tries=1)
    asked, seen[:] = len(seen), []
    probes(zeroth_order, answer, [1], iterations=5, tries=2)
    around = seen[asked]  # one value up, one down, of the point that the second try begins with
    assert torch.equal(around.median(0).values, one.inputs[0])


def test_a_try_of_zeroth_order_ends_where_the_loss_does_not_fall() -> None:
    asked: list[int] = []

    def answer(inputs: Tensor) -> Tensor:
        asked.append(len(inputs))
        return torch.full((len(inputs), 3), 1 / 3)

    made = probes(zeroth_order, answer, [0], iterations=20, tries=2)
    assert made.queries == sum(asked) == 1 + 2 * 3 * (2 * 16 + 1), "looked at after the first and third iteration"


def test_random_squares_work_on_rounded_answers_and_differences_do_not() -> None:
    model = Asked()
    exact = Asked.__call__
    rounded = [
        probes(
            how, lambda x: exact(model, x).mul(100).round() / 100, [0, 1, 2] * 3, threshold=0.99, tries=1, **LONG[how]
        )
        for how in (zeroth_order, random_squares)
    ]
    assert rounded[1].accepted.all()
    assert not rounded[0].accepted.all()


def test_random_squares_walk_on_where_all_answers_are_alike() -> None:
    seen: list[Tensor] = []

    def answer(inputs: Tensor) -> Tensor:
        seen.append(inputs.clone())
        return torch.full((len(inputs), 3), 1 / 3)

    made = probes(random_squares, answer, [0], changes=40, tries=1, area=1 / 16)
    assert torch.equal(made.inputs, seen[0])
    assert all(int((now != before).sum()) <= 2 for now, before in itertools.pairwise(seen))
    assert int((seen[-1] != seen[0]).sum()) > 4


def test_on_digits_both_strategies_are_accepted_and_random_squares_ask_half_as_much(digits_mlp: nn.Module) -> None:
    classes = list(range(10)) * 3
    slow, cheap = (
        probes(how, lambda x: digits_mlp(x).softmax(1), classes, shape=(1, 8, 8), **changes)
        for how, changes in ((zeroth_order, {"iterations": 20}), (random_squares, {"changes": 2000}))
    )
    for made in (slow, cheap):
        assert made.accepted.float().mean() >= 0.9
        with torch.no_grad():
            given = digits_mlp(made.inputs).softmax(1)
        assert torch.allclose(given.gather(1, made.classes[:, None])[:, 0].double(), made.confidence, atol=1e-6)
    assert cheap.queries <= 0.5 * slow.queries


@STRATEGIES
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.01}, "threshold"),
        ({"tries": 0}, "tries"),
        ({"spread": float("nan")}, "spread"),
        ({"at_once": 0}, "at_once"),
        ({"domain": (torch.ones(()), torch.zeros(()))}, "domain"),
        ({"domain": (torch.zeros(()), torch.tensor(math.inf))}, "domain"),
        ({"domain": (torch.zeros((), dtype=torch.half), torch.ones((), dtype=torch.half))}, "domain"),
        ({"domain": (torch.zeros(3), torch.ones(3))}, "domain: got edges of shapes"),
    ],
)
def test_bad_settings_are_named(strategy: Any, changes: dict[str, Any], names: str) -> None:
    with pytest.raises(BadInput, match=names):
        probes(strategy, Asked(), [0, 1], **changes)


@pytest.mark.parametrize(
    ("strategy", "changes", "names"),
    [
        (zeroth_order, {"iterations": 0}, "iterations"),
        (zeroth_order, {"coordinates": 0}, "coordinates"),
        (zeroth_order, {"step": 0.0}, "step"),
        (zeroth_order, {"lr": -1.0}, "lr"),
        (zeroth_order, {"late_lr": math.inf}, "late_lr"),
        (random_squares, {"changes": 0}, "changes"),
        (random_squares, {"area": 0.0}, "area"),
        (random_squares, {"area": 1.5}, "area"),
        (random_squares, {"shape": (2, 2, 2, 2)}, "shape"),
    ],
)
def test_bad_settings_of_one_strategy_are_named(strategy: Any, changes: dict[str, Any], names: str) -> None:
    with pytest.raises(BadInput, match=f"^{names}: got"):
        probes(strategy, Asked(), [0, 1], **changes)


@pytest.mark.parametrize("classes", [[], [-1], [0, 3]])
@pytest.mark.parametrize("strategy", [zeroth_order, random_squares])
def test_bad_classes_are_named(strategy: Any, classes: list[Any]) -> None:
    with pytest.raises(BadInput, match=r"^classes: got"):
        probes(strategy, Asked(), classes)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x.flatten(1).sum(1),
        lambda x: torch.full((len(x), 3), 2.0),
        lambda x: torch.full((len(x), 3), math.nan),
        lambda x: torch.full((1, 3), 0.3),
    ],
)
@STRATEGIES
def test_answers_that_are_no_posteriors_are_refused(strategy: Any, answer: Any) -> None:
    with pytest.raises(BadInput, match=r"^answer: got"):
        probes(strategy, answer, [0, 1])
