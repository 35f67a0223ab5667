"""Where theory gives the answer: a convex model, one plain SGD step, and retraining itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples
from palimpsest.unlearn.influence import Influence
from palimpsest.unlearn.retrain import Retrain
from palimpsest.unlearn.single_gradient import SingleGradient

DECAY = 0.01


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def optimum(task: Classification, records: Examples) -> nn.Module:
    """L2-regularised softmax regression, solved to convergence in float64."""
    model = Linear().build(task, Rng(0)).double()
    batch = records.batch()
    inputs, targets = batch.inputs["image"].double(), batch.targets
    solver = torch.optim.LBFGS(
        model.parameters(), max_iter=3000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        logits = model(inputs)
        loss = (logits.logsumexp(1) - logits[torch.arange(len(targets)), targets]).mean()
        loss = loss + DECAY / 2 * sum(parameter.square().sum() for parameter in model.parameters())
        loss.backward()
        return loss

    solver.step(closure)
    closure()
    assert max(float(parameter.grad.abs().max()) for parameter in model.parameters()) < 1e-8, "not converged"
    return model.eval()


def newton(trained: Trained, records: Examples, count: int, **settings) -> tuple[float, float]:
    """Distance to retraining after influence unlearning of the first `count` records, and of doing nothing."""
    forget, retain = records.take(list(range(count))), records.take(list(range(count, len(records))))
    goal = weights_of(optimum(trained.task, retain))
    unlearner = Influence(**{"alpha": 1.0, "curvature": "exact", "samples": None, "damping": DECAY, **settings})
    result = unlearner.unlearn(trained, retain, forget, rng=Rng(0))
    nothing = float((weights_of(trained.model) - goal).norm())
    return float((weights_of(result.model) - goal).norm()), nothing


@pytest.fixture(scope="module")
def convex(digits, digits_task) -> tuple[Trained, Examples]:
    """The first ten records come in sixteen copies each, so that forgetting k copies of all ten asks for the same change k times
    over, and the order of the error can be read off."""
    order = np.random.default_rng(0).permutation(len(digits.train))[:250]
    chosen = digits.train.take(np.concatenate([np.tile(order[:10], 16), order[10:]]))
    records = Examples.of({"image": chosen.raw("image")}, chosen.targets, [f"r{i}" for i in range(len(chosen))])
    return Trained(optimum(digits_task, records), digits_task, records.ids), records


def test_exact_influence_approaches_retraining_with_the_square_of_the_forgotten_share(convex) -> None:
    trained, records = convex
    errors, nothing = zip(*(newton(trained, records, count) for count in (10, 20, 40)), strict=True)
    assert errors[0] < 0.02 * nothing[0]
    order, still = (np.log2(values[2] / values[0]) / 2 for values in (errors, nothing))
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
