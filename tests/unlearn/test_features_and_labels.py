"""Unlearning of features and labels: updates by hand, the order of its error where theory gives it, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from palimpsest.catalog import make
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.features_and_labels import FeaturesAndLabels
from palimpsest.unlearn.influence import Influence
from tests.unlearn.by_hand import agree, losses, moved, single_gradients, slope
from tests.unlearn.by_hand import flat as joined
from tests.unlearn.conftest import CLASSES, Shifted
from tests.unlearn.convex import DECAY, objective, of_kind, optimum, order_of, weights_of

REPLACEMENTS = [{"replace": "nothing"}, {"replace": "labels"}, {"replace": "features", "features": (0, 2)}]
every_replacement = pytest.mark.parametrize("how", REPLACEMENTS, ids=lambda how: how["replace"])


# By hand ----------------------------------------------------------------------------------------------------------------


def change_by_hand(problem, how) -> Tensor:
    """Σ∇ℓ(z̃) − Σ∇ℓ(z), shape (p,)."""
    inputs, targets = problem.data(problem.forget)
    change = -joined(slope(problem.weights, inputs, targets, how="sum"))
    if how["replace"] == "labels":
        change += joined(slope(problem.weights, inputs, (targets + 1) % CLASSES, how="sum"))
    if how["replace"] == "features":
        inputs = inputs.clone()
        for feature in how["features"]:
            inputs[:, feature] = problem.data(problem.retain)[0][:, feature].sum() / 11
        change += joined(slope(problem.weights, inputs, targets, how="sum"))
    return change


def hessian_by_hand(problem, records) -> Tensor:
    inputs, targets = problem.data(records)
    start = torch.cat([weight.flatten() for weight in problem.weights])

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([weight.numel() for weight in problem.weights])
        weights = [part.view(weight.shape) for part, weight in zip(parts, problem.weights, strict=True)]
        return losses(weights, inputs, targets).mean()

    return torch.autograd.functional.hessian(loss, start)


@every_replacement
def test_first_order(problem, how) -> None:
    expected = moved(problem, -0.3 * change_by_hand(problem, how))
    agree(problem, FeaturesAndLabels(order="first", rate=0.3, **how), expected)


@every_replacement
def test_second_order(problem, how) -> None:
    """The Hessian is that of all records, in the form in which the model was trained on them."""
    system = 16 * (hessian_by_hand(problem, problem.records) + 2.0 * torch.eye(31, dtype=torch.float64))
    expected = moved(problem, -torch.linalg.solve(system, change_by_hand(problem, how)))
    settings = {"curvature": "exact", "damping": 2.0, "samples": None, "tolerance": 1e-10}
    agree(problem, FeaturesAndLabels(**settings, **how), expected)


def test_second_order_with_a_sample(problem) -> None:
    """n counts all records, whatever the sample: the sample stands for their mean curvature."""
    everything = problem.retain.ids.tolist() + problem.forget.ids.tolist()
    order = torch.randperm(16, generator=Rng(0).child("curvature").torch())[:6]
    sample = problem.records.only([everything[i] for i in order])
    system = 16 * (hessian_by_hand(problem, sample) + 2.0 * torch.eye(31, dtype=torch.float64))
    expected = moved(problem, -torch.linalg.solve(system, change_by_hand(problem, {"replace": "nothing"})))
    agree(
        problem,
        FeaturesAndLabels(curvature="exact", damping=2.0, samples=6, tolerance=1e-10),
        expected,
    )


def test_removal_in_first_order_ascends_on_the_forgotten_records(problem) -> None:
    total = single_gradients(problem, problem.forget).sum(0)
    agree(problem, FeaturesAndLabels(order="first", rate=0.1), moved(problem, 0.1 * total))


# Where theory gives the answer ------------------------------------------------------------------------------------------

CONVEX = [{"replace": "nothing"}, {"replace": "labels"}, {"replace": "features", "features": tuple(range(16, 48))}]
every_convex = pytest.mark.parametrize("how", CONVEX, ids=lambda how: how["replace"])
COUNTS = (10, 20, 40, 80)


@pytest.fixture(scope="module")
def optimal(copies, digits_task) -> Callable[[float], Trained]:
    """The optimum under some weight decay. Labels are wrong in a known way, so that k copies ask for k times one change."""
    task = of_kind(Shifted, digits_task)
    return functools.cache(lambda decay: Trained(optimum(task, copies, decay=decay), task, copies.ids))


def parted(records: Examples, count: int) -> tuple[Examples, Examples]:
    return records.take(list(range(count, len(records)))), records.take(list(range(count)))


def corrected(trained, retain: Examples, forget: Examples, how) -> Examples:
    """What the model should have been trained on, made without the method's code."""
    batch = forget.batch()
    pictures, targets = batch.inputs["image"].clone(), batch.targets
    if how["replace"] == "nothing":
        return retain
    if how["replace"] == "labels":
        targets = (targets + 1) % trained.task.classes
    else:
        mean = retain.batch().inputs["image"].mean(0).flatten()
        for feature in how["features"]:
            pictures.view(len(forget), -1)[:, feature] = mean[feature]
    pictures = torch.cat([retain.batch().inputs["image"], pictures])
    names = np.concatenate([retain.ids, forget.ids]).tolist()
    return Examples.of({"image": pictures}, torch.cat([retain.targets, targets]), names)


def second_order(trained, records: Examples, count: int, decay: float, how) -> tuple[float, float]:
    """Distance to the optimum of the corrected sum, after the step for the first `count` records and of doing nothing."""
    retain, forget = parted(records, count)
    goal = weights_of(optimum(trained.task, corrected(trained, retain, forget, how), len(records), decay))
    unlearner = FeaturesAndLabels(curvature="exact", damping=decay, samples=None, tolerance=1e-9, **how)
    result = unlearner.unlearn(trained, retain, forget, rng=Rng(0))
    stepped, still = (float((weights_of(each.model) - goal).norm()) for each in (result, trained))
    return stepped, still


@every_convex
def test_the_second_order_approaches_the_corrected_optimum_with_the_square_of_the_share(optimal, copies, how) -> None:
    trained = optimal(1.0)
    errors, nothing = zip(*(second_order(trained, copies, count, 1.0, how) for count in COUNTS), strict=True)
    assert errors[0] < 0.03 * nothing[0]
    order, still = order_of(errors, COUNTS), order_of(nothing, COUNTS)
    assert 1.9 < order < 2.2, f"error ~ share^{order:.2f}"
    assert still < 1.2, f"doing nothing ~ share^{still:.2f}"


def test_removal_under_a_small_decay_has_the_same_order(optimal, copies) -> None:
    """The removed records are fitted, and their gradients small. Relabelled ones are not: see the next test."""
    trained, how = optimal(DECAY), {"replace": "nothing"}
    errors, nothing = zip(*(second_order(trained, copies, count, DECAY, how) for count in COUNTS), strict=True)
    assert errors[0] < 0.03 * nothing[0]
    assert 1.9 < order_of(errors, COUNTS) < 2.3


def test_where_the_loss_is_flat_relabelling_overshoots(optimal, copies) -> None:
    """The docstring's warning: one step from the curvature of records that the model fits is worse than none."""
    error, nothing = second_order(optimal(DECAY), copies, 10, DECAY, {"replace": "labels"})
    assert error > nothing


def test_removal_keeps_the_decay_of_the_sum_and_influence_that_of_the_mean(optimal, copies) -> None:
    """Each goes towards its own optimum, and the other's is far off: the two ways to read "retraining"."""
    trained, (retain, forget) = optimal(1.0), parted(copies, 20)
    exact = {"curvature": "exact", "damping": 1.0, "samples": None, "tolerance": 1e-9}
    fixed, mean = (weights_of(optimum(trained.task, retain, n, 1.0)) for n in (len(copies), len(retain)))
    for method, near, far in ((FeaturesAndLabels(**exact), fixed, mean), (Influence(alpha=1.0, **exact), mean, fixed)):
        found = weights_of(method.unlearn(trained, retain, forget, rng=Rng(0)).model)
        assert float((found - near).norm()) < 0.5 * float((found - far).norm())


@every_convex
@pytest.mark.parametrize("decay", [DECAY, 1.0])
def test_the_first_order_lowers_the_loss_on_the_corrected_records(optimal, copies, how, decay) -> None:
    trained, (retain, forget) = optimal(decay), parted(copies, 40)
    right = corrected(trained, retain, forget, how)
    result = FeaturesAndLabels(order="first", **how).unlearn(trained, retain, forget, rng=Rng(0))
    best = optimum(trained.task, right, len(copies), decay)
    with torch.no_grad():
        models = (trained.model, result.model, best)
        before, after, least = (float(objective(each, right, len(copies), decay)) for each in models)
    assert least < after < before


# What takes the records' place ------------------------------------------------------------------------------------------


def test_pixels_become_floats_and_the_records_that_came_in_stay(digits_task, digits_few) -> None:
    retain, forget = parted(digits_few, 20)
    before = forget.raw("image").clone()
    assert before.dtype == torch.uint8
    method = FeaturesAndLabels(replace="features", features=(27, 28))
    found = method.correct(digits_task, retain, forget, Rng(0))
    values, old, kept = (each.batch().inputs["image"].flatten(1) for each in (found, forget, retain))
    others = [i for i in range(64) if i not in (27, 28)]
    assert torch.equal(values[:, others], old[:, others])
    assert torch.allclose(values[:, [27, 28]], kept[:, [27, 28]].double().mean(0).float().expand(20, 2))
    assert torch.equal(forget.raw("image"), before)
    assert (found.ids.tolist(), found.targets.tolist()) == (forget.ids.tolist(), forget.targets.tolist())


def test_labels_are_the_tasks_random_ones(digits_task, digits_few) -> None:
    retain, forget = parted(digits_few, 20)
    found = FeaturesAndLabels(replace="labels").correct(digits_task, retain, forget, Rng(3))
    expected = digits_task.randomise(forget.targets, Rng(3).child("labels").torch())
    assert found.targets.tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 1
    assert found.raw("image").equal(forget.raw("image"))


def test_labels_that_stay_ask_for_no_change(problem) -> None:
    """Where each label drawn is the true one there is nothing to unlearn, and the solve of 0 is 0."""

    class Same(Shifted):
        def randomise(self, targets: Tensor, rng: torch.Generator) -> Tensor:
            return targets

    trained = dataclasses.replace(problem.trained(), task=of_kind(Same, problem.task))
    result = FeaturesAndLabels(replace="labels").unlearn(trained, problem.retain, problem.forget, rng=Rng(0))
    assert torch.equal(weights_of(result.model), weights_of(trained.model))


# What is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"replace": "features"}, {"features": (1,)}, {"replace": "labels", "features": (1,)}]
)
def test_features_belong_to_replace_features(settings) -> None:
    with pytest.raises(BadInput, match=r"^features_and_labels\.features: got .*, expected (positions|none)"):
        make("unlearners", "features_and_labels", settings)


def test_features_from_words() -> None:
    made = make("unlearners", "features_and_labels", {"replace": "features", "features": "3,5"})
    assert made.features == (3, 5)


def test_a_position_that_the_record_does_not_have(problem) -> None:
    method = FeaturesAndLabels(replace="features", features=(0, 3))
    with pytest.raises(BadInput, match=re.escape("features_and_labels.features: got position 3, expected 0 … 2")):
        method.unlearn(problem.trained(), problem.retain, problem.forget, rng=Rng(0))


def test_tokens_have_no_mean(problem) -> None:
    tokens = Examples.of({"x": torch.ones(16, 3, dtype=torch.int64)}, problem.records.targets, problem.records.ids)
    method = FeaturesAndLabels(replace="features", features=(0,))
    with pytest.raises(BadInput, match="expected floats or pixels"):
        method.correct(problem.task, tokens, tokens, Rng(0))


def test_an_indefinite_hessian_is_refused(problem) -> None:
    method = FeaturesAndLabels(curvature="exact", damping=1e-6, samples=None)
    with pytest.raises(BadInput, match="curvature=ggn"):
        method.unlearn(problem.trained(), problem.retain, problem.forget, rng=Rng(0))
