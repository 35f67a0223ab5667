"""Certified removal: the step and its bound by hand, the order of its error, the trigger, and the accounts."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from palimpsest.errors import BadInput
from palimpsest.learn import objective_perturbed
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.learn.objective_perturbed import ObjectivePerturbed
from palimpsest.learn.output_perturbed import OutputPerturbed
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.types import Examples
from palimpsest.unlearn.certified_removal import CertifiedRemoval, newton_steps
from palimpsest.unlearn.finetune import Finetune
from tests.unlearn.linear import data, fit, matrix, minimum, split, task

DECAY = 0.1
LEARNER = ObjectivePerturbed(weight_decay=DECAY)
BOUNDS = pytest.mark.parametrize("bound", ["paper", "tight"])


def loss(w: Tensor, x: Tensor, y: Tensor, k: int, b: Tensor | float = 0.0, decay: float = DECAY) -> Tensor:
    """Of class k against the rest, summed over the records; written out with labels of −1 and 1."""
    sign = torch.where(y == k, 1.0, -1.0).double()
    return (1 + (-sign * (x @ w)).exp()).log().sum() + decay / 2 * len(x) * w @ w + (b * w).sum()


def slope(w: Tensor, x: Tensor, y: Tensor, k: int, b: Tensor | float = 0.0, decay: float = DECAY) -> Tensor:
    return torch.autograd.functional.jacobian(lambda v: loss(v, x, y, k, b, decay), w)


def optimum(x: Tensor, y: Tensor, perturbation: Tensor, decay: float = DECAY) -> Tensor:
    return torch.stack(
        [
            minimum(lambda v, k=k, b=b: loss(v, x, y, k, b, decay), torch.zeros_like(b))
            for k, b in enumerate(perturbation)
        ]
    )


@pytest.fixture
def few(problem):
    """Sixteen records of three features in three classes, so strongly regularised that five of them can go."""
    learner = ObjectivePerturbed(sigma=20.0, weight_decay=2.0)
    return problem, learner.fit(problem.task, problem.records, Recipe(), Linear(), rng=Rng(3))


def test_the_learner_finds_the_minimum_of_the_perturbed_loss(few) -> None:
    problem, trained = few
    x, y = data(problem.task, problem.records)
    b = trained.kept["perturbation"]
    assert 10 < float(b.std()) < 30
    assert torch.allclose(trained.kept["weights"], optimum(x, y, b, 2.0), atol=1e-8)
    assert torch.allclose(matrix(trained.model), trained.kept["weights"], rtol=1e-6, atol=1e-7)
    assert float(trained.kept["residual"].max()) < 1e-8
    assert trained.budget is None


@BOUNDS
def test_the_first_update(few, bound) -> None:
    problem, trained = few
    (x, y), (gone, classes) = (data(problem.task, part) for part in (problem.retain, problem.forget))
    wanted, left = [], []
    for k, w in enumerate(trained.kept["weights"]):
        bend = torch.autograd.functional.hessian(lambda v, k=k: loss(v, x, y, k, decay=2.0), w)
        step = torch.linalg.inv(bend) @ slope(w, gone, classes, k, decay=2.0)
        wanted.append(w + step)
        along, spread = (x @ step).abs().numpy(), float(np.linalg.svd(x.numpy(), compute_uv=False)[0])
        if bound == "paper":
            left.append(0.25 * spread * along.max() * math.sqrt((along**2).sum()))
        else:
            left.append(spread * math.sqrt((along**4).sum()) / (12 * math.sqrt(3)))
    result = CertifiedRemoval(epsilon=2.0, bound=bound).unlearn(trained, problem.retain, problem.forget, rng=Rng(0))
    old, new = matrix(trained.model), torch.stack(wanted)
    assert float((new - old).norm()) > 1e-3, "the reference must move"
    assert float((matrix(result.model) - new).norm() / (new - old).norm()) < 1e-5
    assert torch.allclose(result.kept["weights"], new, rtol=1e-10)
    assert np.allclose((result.kept["residual"] - trained.kept["residual"]).numpy(), left, rtol=1e-9, atol=0)
    spent = math.sqrt(sum(value**2 for value in left)) * math.sqrt(2 * math.log(1.5e4)) / 20.0
    assert result.budget == pytest.approx(spent, rel=1e-6)


def test_its_distance_to_the_exact_minimum_falls_with_the_square_of_the_share() -> None:
    """As in test_known_answers: ten records in sixteen copies each, of which more and more are forgotten. Noise next to none."""
    order = np.random.default_rng(0).permutation(len(split().train))[:250]
    chosen = split().train.take(np.concatenate([np.tile(order[:10], 16), order[10:]]))
    records = Examples.of({"features": chosen.raw("features")}, chosen.targets, [f"r{i}" for i in range(len(chosen))])
    kept = fit(dataclasses.replace(LEARNER, sigma=1e-9), records).kept
    weights, errors, still = kept["weights"], [], []
    for count in (10, 20, 40, 80):
        (gone, classes), (x, y) = (
            data(task(), records.take(list(part))) for part in (range(count), range(count, len(records)))
        )
        goal = optimum(x, y, kept["perturbation"])
        step, _ = newton_steps(weights, x, gone, classes, DECAY)
        errors.append(float((weights + step - goal).norm()))
        still.append(float((weights - goal).norm()))
    shares = np.log(np.array([10, 20, 40, 80]) / len(records))
    order_of_error, order_of_nothing = (np.polyfit(shares, np.log(values), 1)[0] for values in (errors, still))
    assert 1.85 < order_of_error < 2.3, f"error ~ share^{order_of_error:.2f}: {errors}"
    assert order_of_nothing < 1.2
    assert errors[0] < 0.05 * still[0], (errors, still)


@BOUNDS
def test_what_is_left_of_the_gradient_is_never_above_the_bound(bound) -> None:
    """Forty requests of one to five records in a row, against the gradient of the perturbed loss itself."""
    kept = fit(LEARNER, split().train).kept
    weights, added = kept["weights"], kept["residual"].clone()
    left, draw, ratios = split().train, np.random.default_rng(1), []
    for _ in range(40):
        ids = draw.choice(left.ids, int(draw.integers(1, 6)), replace=False)
        (gone, classes), left = data(task(), left.only(ids)), left.without(ids)
        x, y = data(task(), left)
        step, new = newton_steps(weights, x, gone, classes, DECAY, bound)
        weights, added = weights + step, added + new
        true = torch.stack([slope(w, x, y, k, kept["perturbation"][k]).norm() for k, w in enumerate(weights)])
        assert (true <= added).all()
        ratios.append(float((added / true).min()))
    assert max(ratios) < 1e4, "a bound that says nothing"


def requests(count: int) -> list[tuple[Examples, Examples]]:
    """Retain and forget records of so many requests for one record, one after the other."""
    left, made = split().train, []
    for index in range(count):
        gone = left.take([index])
        left = left.without(gone.ids)
        made.append((left, gone))
    return made


@BOUNDS
def test_it_trains_anew_when_the_sum_passes_the_budget_and_not_before(bound) -> None:
    trained = now = fit(LEARNER, split().train)
    method = CertifiedRemoval(epsilon=0.05, bound=bound)
    most = 0.05 * LEARNER.sigma / math.sqrt(2 * math.log(1.5 / 1e-4))
    fired, added, weights = [], trained.kept["residual"], trained.kept["weights"]
    for index, (retain, forget) in enumerate(requests(30)):
        (x, _), (gone, classes) = (data(task(), part) for part in (retain, forget))
        step, left = newton_steps(weights, x, gone, classes, DECAY, bound)
        now = method.unlearn(now, retain, forget, rng=Rng(index))
        if float((added + left).norm()) > most:
            fired.append(index)
            fresh = LEARNER.fit(task(), retain, Recipe(), Linear(), rng=Rng(index).child("anew"))
            weights, added = fresh.kept["weights"], fresh.kept["residual"]
            assert now.kept.keys() == fresh.kept.keys()
            assert all(torch.equal(value, now.kept[key]) for key, value in fresh.kept.items())
            assert not torch.equal(now.kept["perturbation"], trained.kept["perturbation"])
            assert torch.equal(matrix(now.model), matrix(fresh.model))
            assert now.budget < 1e-6
        else:
            weights, added = weights + step, added + left
            assert torch.allclose(now.kept["weights"], weights, rtol=1e-9, atol=0)
            assert torch.allclose(now.kept["residual"], added, rtol=1e-9, atol=0)
        assert now.budget <= 0.05
    assert 1 <= len(fired) < 25, fired


def test_the_trigger_is_at_the_budget() -> None:
    trained = fit(LEARNER, split().train)
    ((retain, forget),) = requests(1)
    spent = CertifiedRemoval().unlearn(trained, retain, forget, rng=Rng(0)).budget
    assert 0 < spent < 1
    below, above = (
        CertifiedRemoval(epsilon=spent * factor).unlearn(trained, retain, forget, rng=Rng(0))
        for factor in (1 - 1e-9, 1 + 1e-9)
    )
    assert torch.equal(above.kept["perturbation"], trained.kept["perturbation"])
    assert not torch.equal(below.kept["perturbation"], trained.kept["perturbation"])


def test_the_account_of_many_requests_is_their_sum() -> None:
    now = fit(LEARNER, split().train)
    total, seen = now.kept["residual"].clone(), []
    for index, (retain, forget) in enumerate(requests(12)):
        (x, _), (gone, classes) = (data(task(), part) for part in (retain, forget))
        total += newton_steps(now.kept["weights"], x, gone, classes, DECAY, "tight")[1]
        now = CertifiedRemoval(bound="tight").unlearn(now, retain, forget, rng=Rng(index))
        seen.append(now.budget)
    assert torch.allclose(now.kept["residual"], total, rtol=1e-9, atol=0)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(float(total.norm()) * math.sqrt(2 * math.log(1.5e4)) / LEARNER.sigma, rel=1e-9)


def test_a_model_that_is_not_linear_is_refused() -> None:
    with pytest.raises(BadInput, match="expected a model that is linear in its normalised inputs"):
        LEARNER.fit(task(), split().train, Recipe(), Mlp(width=4), rng=Rng(0))
    deep = Plain().fit(task(), split().train, Recipe(epochs=1), Mlp(width=4), rng=Rng(0))
    ((retain, forget),) = requests(1)
    with pytest.raises(BadInput, match="--model linear"):
        CertifiedRemoval().unlearn(deep, retain, forget, rng=Rng(0))


def test_weights_that_the_learner_did_not_make_are_refused() -> None:
    (first, second) = requests(2)
    for learner in (Plain(), OutputPerturbed(weight_decay=1.0, iterations=1)):
        with pytest.raises(BadInput, match="train with --learner objective_perturbed"):
            CertifiedRemoval().unlearn(fit(learner, split().train), *first, rng=Rng(0))
    tuned = Finetune(epochs=1).unlearn(fit(LEARNER, split().train), *first, rng=Rng(0))
    assert tuned.budget is None
    with pytest.raises(BadInput, match="others than those kept"):
        CertifiedRemoval().unlearn(tuned, *second, rng=Rng(0))


def test_records_held_back_are_refused() -> None:
    """Without some retained records the Hessian, and so the bound, would be of another loss."""
    ((retain, forget),) = requests(1)
    with pytest.raises(BadInput, match="all of its records"):
        CertifiedRemoval().unlearn(fit(LEARNER, split().train), retain.take([0, 1, 2]), forget, rng=Rng(0))


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (ObjectivePerturbed, {"weight_decay": 0.0}),
        (ObjectivePerturbed, {"sigma": 0.0}),
        (ObjectivePerturbed, {"tolerance": 0.0}),
        (CertifiedRemoval, {"epsilon": 0.0}),
        (CertifiedRemoval, {"epsilon": 2.5}),
        (CertifiedRemoval, {"delta": 0.0}),
        (CertifiedRemoval, {"delta": 1.0}),
    ],
)
def test_impossible_settings_are_refused(cls, settings) -> None:
    with pytest.raises(BadInput, match="expected a finite number"):
        cls(**settings)


def test_a_gradient_that_rounding_keeps_from_the_tolerance_is_an_error() -> None:
    with pytest.raises(BadInput, match=r"raise objective_perturbed\.tolerance"):
        fit(ObjectivePerturbed(tolerance=1e-300), split().train)


def test_a_run_killed_in_any_class_goes_on_there(few, tmp_path: Path, monkeypatch) -> None:
    """At most one Newton step, and the look that ends a class, are made again."""
    problem, whole = few
    count, made, dies_after = Meter.count, [], -1

    def counted(self: Meter, *args: int) -> None:
        if len(made) == dies_after:
            raise KeyboardInterrupt
        made.append(1)
        count(self, *args)

    def run(checkpoint: Checkpoint) -> Trained:
        made.clear()
        return whole.learner.fit(problem.task, problem.records, Recipe(), Linear(), rng=Rng(3), checkpoint=checkpoint)

    monkeypatch.setattr(Meter, "count", counted)
    total, classes = whole.cost.gradient_evaluations, set()
    for kill in range(1, total, 3):
        checkpoint, dies_after = Checkpoint(Store(tmp_path / str(kill)), {}, every_seconds=0.0), kill
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint)
        left = checkpoint.store.get("checkpoint", {})
        classes.add(left and left.info["step"] // (objective_perturbed.STEPS + 1))
        dies_after = -1
        resumed = run(checkpoint)
        assert total - kill <= len(made) <= total - kill + 3
        assert (resumed.cost.samples, resumed.cost.gradient_evaluations) == (whole.cost.samples, total)
        assert all(torch.equal(value, resumed.kept[key]) for key, value in whole.kept.items())
    assert classes == {None, 0, 1, 2}


def test_a_class_that_was_given_up_is_given_up_again(tmp_path: Path, monkeypatch) -> None:
    """The checkpoint of its last step must not lead on to the next class."""
    monkeypatch.setattr(objective_perturbed, "STEPS", 2)
    checkpoint = Checkpoint(Store(tmp_path), {}, every_seconds=0.0)
    for _ in range(3):
        with pytest.raises(BadInput, match="got a gradient of norm"):
            LEARNER.fit(task(), split().train, Recipe(), Linear(), rng=Rng(0), checkpoint=checkpoint)
