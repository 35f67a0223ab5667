"""Where theory gives the answer: a convex model, one plain SGD step, and retraining itself."""

from __future__ import annotations

import math

import pytest
import torch

from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.influence import Influence
from palimpsest.unlearn.retrain import Retrain
from palimpsest.unlearn.single_gradient import SingleGradient
from tests.unlearn.convex import DECAY, optimum, order_of, weights_of


def newton(trained: Trained, records: Examples, count: int, **settings) -> tuple[float, float]:
    """Distance to retraining after influence unlearning of the first `count` records, and of doing nothing."""
    forget, retain = records.take(list(range(count))), records.take(list(range(count, len(records))))
    goal = weights_of(optimum(trained.task, retain))
    unlearner = Influence(**{"alpha": 1.0, "curvature": "exact", "samples": None, "damping": DECAY, **settings})
    result = unlearner.unlearn(trained, retain, forget, rng=Rng(0))
    nothing = float((weights_of(trained.model) - goal).norm())
    return float((weights_of(result.model) - goal).norm()), nothing


def test_exact_influence_approaches_retraining_with_the_square_of_the_forgotten_share(convex) -> None:
    trained, records = convex
    counts = (10, 20, 40)
    errors, nothing = zip(*(newton(trained, records, count) for count in counts), strict=True)
    assert errors[0] < 0.02 * nothing[0]
    order, still = (order_of(values, counts) for values in (errors, nothing))
    assert 1.9 < order < 2.3, f"error ~ count^{order:.2f}"
    assert still < 1.2, f"doing nothing ~ count^{still:.2f}"


def test_on_softmax_regression_gauss_newton_is_the_hessian(convex) -> None:
    trained, records = convex
    exact, ggn = (newton(trained, records, 10, curvature=kind)[0] for kind in ("exact", "ggn"))
    assert math.isclose(exact, ggn, rel_tol=1e-4)


def test_the_published_solver_does_not_reach_retraining(convex) -> None:
    trained, records = convex
    correct, _ = newton(trained, records, 10)
    published, nothing = newton(trained, records, 10, curvature="fisher", solver="published", samples=100)
    assert published > 10 * correct
    assert published > 0.5 * nothing


def test_single_gradient_undoes_one_plain_sgd_step(digits_task, digits_few) -> None:
    """One full-batch step; undoing it for some records leaves the step of the others, under the old denominator."""
    plain = Recipe(epochs=1, batch_size=200, lr=0.4, momentum=0.0, weight_decay=0.0, schedule="constant")
    trained = Plain().fit(digits_task, digits_few, plain, Linear(), rng=Rng(3))
    forget, retain = digits_few.take(list(range(30))), digits_few.take(list(range(30, 200)))
    result = SingleGradient().unlearn(trained, retain, forget, rng=Rng(4))

    model = Linear().build(digits_task, Rng(3))
    (digits_task.loss(model, retain.batch(), reduction="sum") / 200).backward()
    expected = torch.cat([(p - 0.4 * p.grad).detach().flatten() for p in model.parameters()])
    assert float((weights_of(result.model) - expected).abs().max()) < 1e-6
    assert float((weights_of(trained.model) - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("factory", [Linear(), ConvNet(width=2)], ids=["linear", "convnet"])
def test_retrain_is_learning_on_the_retain_set_bit_for_bit(factory, digits_task, digits_few) -> None:
    recipe = Recipe(epochs=2, batch_size=64)
    trained = Plain().fit(digits_task, digits_few, recipe, factory, rng=Rng(1))
    forget, retain = digits_few.take(list(range(20))), digits_few.take(list(range(20, 200)))
    result = Retrain().unlearn(trained, retain, forget, rng=Rng(2))
    honest = Plain().fit(digits_task, retain, recipe, factory, rng=Rng(2))
    assert all(
        torch.equal(found, wanted)
        for found, wanted in zip(result.model.state_dict().values(), honest.model.state_dict().values(), strict=True)
    )
    assert set(result.kept) == set(honest.kept)
    assert all(torch.equal(value, honest.kept[name]) for name, value in result.kept.items()), "kept are the new ones"
    assert result.cost.gradient_evaluations == honest.cost.gradient_evaluations
