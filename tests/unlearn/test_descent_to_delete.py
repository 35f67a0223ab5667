"""Descent-to-delete: the steps and the noise by hand, and the invariant against exact minima."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from palimpsest.errors import BadInput
from palimpsest.learn.objective_perturbed import ObjectivePerturbed
from palimpsest.learn.output_perturbed import FLOOR, OutputPerturbed
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.unlearn.descent_to_delete import DescentToDelete
from palimpsest.unlearn.finetune import Finetune
from tests.unlearn.linear import data, fit, matrix, minimum, split, task

DECAY = 0.5


def loss(w: Tensor, x: Tensor, y: Tensor, decay: float = DECAY) -> Tensor:
    logits = x @ w.T
    return (logits.logsumexp(1) - logits[torch.arange(len(y)), y]).mean() + decay / 2 * w.square().sum()


def noise(shape: torch.Size, rng: Rng) -> Tensor:
    return torch.randn(shape, generator=rng.child("noise").torch(), dtype=torch.float64)


def test_the_first_update(problem) -> None:
    """Five of sixteen records: I steps and as many more as five records take, then the noise that the theory asks for."""
    learner = OutputPerturbed(weight_decay=DECAY, iterations=7, epsilon=2.0, delta=1e-3)
    trained = learner.fit(problem.task, problem.records, Recipe(), Linear(), rng=Rng(3))
    everything, _ = data(problem.task, problem.records)
    radius = float(everything.square().sum(1).sqrt().max())
    smooth = DECAY + radius**2 / 2
    factor = (smooth - DECAY) / (smooth + DECAY)
    steps = 7 + math.ceil(math.log(1 + 4 * (1 - factor**7)) / math.log(1 / factor))
    x, y = data(problem.task, problem.retain)
    w = trained.kept["weights"]
    for _ in range(steps):
        w = w - 2 / (DECAY + smooth) * torch.autograd.functional.jacobian(lambda v: loss(v, x, y), w)
    near = factor**7 / (1 - factor**7) * 2 * math.sqrt(2) * radius / (DECAY * 11)
    root = math.sqrt(math.log(1e3) + 2) - math.sqrt(math.log(1e3))
    sigma = 2 * near / (math.sqrt(2) * root)
    result = DescentToDelete().unlearn(trained, problem.retain, problem.forget, rng=Rng(5))
    public, old = w + sigma * noise(w.shape, Rng(5)), matrix(trained.model)
    assert steps > 7
    assert torch.allclose(result.kept["weights"], w, rtol=1e-9, atol=1e-12)
    assert float((matrix(result.model) - public).norm() / (public - old).norm()) < 1e-5
    assert float(result.kept["sigma"]) == pytest.approx(sigma, rel=1e-9)
    assert result.budget == 2.0
    assert trained.budget is None
    assert result.cost.gradient_evaluations == steps
    assert result.cost.samples == steps * 11


def test_the_constants_of_the_loss_hold() -> None:
    """No gradient of a record above L, no curvature above M or below m, at weights drawn at random."""
    x, y = data(task(), split().train.take(list(range(60))))
    radius = float(x.norm(dim=1).max())
    draw = torch.Generator().manual_seed(0)
    for scale in (0.0, 0.1, 1.0):
        w = scale * torch.randn(2, x.shape[1], generator=draw, dtype=torch.float64)
        for one in range(0, 60, 7):
            own = (x[one : one + 1], y[one : one + 1])
            slope = torch.autograd.functional.jacobian(lambda v, own=own: loss(v, *own, decay=0.0), w)
            assert float(slope.norm()) <= math.sqrt(2) * radius
        bend = torch.autograd.functional.hessian(lambda v: loss(v, x, y), w).reshape(w.numel(), -1)
        curvatures = torch.linalg.eigvalsh(bend)
        assert float(curvatures[0]) >= DECAY * (1 - 1e-9)
        assert float(curvatures[-1]) <= DECAY + radius**2 / 2


@pytest.mark.parametrize(("iterations", "decay"), [(1, DECAY), (30, DECAY), (300, DECAY), (700, 6.0)])
def test_the_secret_weights_stay_within_the_proven_distance_of_the_minimum(iterations, decay) -> None:
    """Twenty requests of one to four records in a row; with 700 iterations and the strongest decay the distance is its floor."""
    learner = OutputPerturbed(weight_decay=decay, iterations=iterations)
    now, left, draw = fit(learner, split().train), split().train, np.random.default_rng(2)
    radius = float(now.kept["radius"])
    for index in range(21):
        x, y = data(task(), left)
        goal = minimum(lambda v, x=x, y=y: loss(v, x, y, decay), now.kept["weights"])
        proven = learner.distance(radius, len(left))
        assert float((now.kept["weights"] - goal).norm()) <= proven
        assert (proven == FLOOR) == (iterations == 700)
        ids = draw.choice(left.ids, int(draw.integers(1, 5)), replace=False)
        gone, left = left.only(ids), left.without(ids)
        now = DescentToDelete().unlearn(now, left, gone, rng=Rng(index))
        assert float(now.kept["radius"]) == radius


def test_the_noise_is_what_it_says() -> None:
    learner = OutputPerturbed(weight_decay=DECAY, iterations=300)
    trained, retain = fit(learner, split().train), split().train.take(list(range(1, len(split().train))))
    forget, drawn = split().train.take([0]), []
    for seed in range(40):
        result = DescentToDelete().unlearn(trained, retain, forget, rng=Rng(100 + seed))
        drawn.append((matrix(result.model) - result.kept["weights"]).flatten())
    sigma = learner.sigma(float(trained.kept["radius"]), len(retain))
    everything = torch.cat(drawn)  # (2480,)
    assert float(everything.std()) == pytest.approx(sigma, rel=0.06)
    assert abs(float(everything.mean())) < 4 * sigma / math.sqrt(len(everything))
    assert float((drawn[0] - drawn[1]).abs().max()) > sigma, "the same noise twice"
    published = (matrix(trained.model) - trained.kept["weights"]).std()
    assert float(published) == pytest.approx(learner.sigma(float(trained.kept["radius"]), len(split().train)), rel=0.3)


def test_the_noise_gives_the_privacy_that_it_is_for() -> None:
    """ρ + 2√(ρ·ln(1/δ)) is ε, where ρ is that of two runs as far apart as they can be."""
    learner = OutputPerturbed(epsilon=0.7, delta=1e-5)
    rho = (2 * learner.distance(9.0, 300)) ** 2 / (2 * learner.sigma(9.0, 300) ** 2)
    assert rho + 2 * math.sqrt(rho * math.log(1e5)) == pytest.approx(0.7, rel=1e-9)


def test_one_record_takes_the_stated_iterations_and_many_little_more() -> None:
    learner = OutputPerturbed(weight_decay=DECAY, iterations=2000)
    assert DescentToDelete.steps(learner, 15.0, 1) == 2000
    steps = [DescentToDelete.steps(learner, 15.0, gone) for gone in (2, 10, 100)]
    assert 2000 < steps[0] < steps[1] < steps[2] < 2700


def test_what_is_refused() -> None:
    train = split().train
    forget, retain = train.take([0]), train.without(train.ids[:1])
    with pytest.raises(BadInput, match="expected a model that is linear in its normalised inputs"):
        OutputPerturbed().fit(task(), train, Recipe(), Mlp(width=4), rng=Rng(0))
    for learner in (Plain(), ObjectivePerturbed()):
        with pytest.raises(BadInput, match="train with --learner output_perturbed"):
            DescentToDelete().unlearn(fit(learner, train), retain, forget, rng=Rng(0))
    trained = fit(OutputPerturbed(weight_decay=2.0, iterations=100), train)
    with pytest.raises(BadInput, match="all of its records"):
        DescentToDelete().unlearn(trained, retain.take([0, 1, 2]), forget, rng=Rng(0))
    tuned = Finetune(epochs=1).unlearn(trained, retain, forget, rng=Rng(0))
    with pytest.raises(BadInput, match="others than those kept"):
        DescentToDelete().unlearn(tuned, retain.without(retain.ids[:1]), retain.take([0]), rng=Rng(0))


@pytest.mark.parametrize(
    "settings", [{"weight_decay": 0.0}, {"iterations": 0}, {"epsilon": 0.0}, {"delta": 0.0}, {"delta": 1.0}]
)
def test_impossible_settings_are_refused(settings) -> None:
    with pytest.raises(BadInput, match=r"expected a (finite|whole) number"):
        dataclasses.replace(OutputPerturbed(), **settings)
