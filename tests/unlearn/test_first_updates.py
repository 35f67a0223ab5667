"""Each method's weights after its first steps against a float64 computation that shares no code with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from palimpsest.learn.loop import Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.rng import Rng
from palimpsest.unlearn.boundary_shrink import BoundaryShrink, nearest_classes
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.gradient_ascent import GradientAscent
from palimpsest.unlearn.influence import Influence
from palimpsest.unlearn.l1_sparse import L1Sparse
from palimpsest.unlearn.random_label import RandomLabel
from palimpsest.unlearn.salun import SalUn
from palimpsest.unlearn.single_gradient import SingleGradient
from tests.unlearn.by_hand import SGD, ByHand, agree, flat, losses, moved, single_gradients, slope


def test_finetune(problem) -> None:
    hand = ByHand(problem.weights)
    for _ in range(3):
        hand.step(slope(hand.weights, *problem.data(problem.retain)))
    agree(problem, Finetune(epochs=3, **SGD), hand.weights)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_gradient_ascent(problem, clip) -> None:
    hand = ByHand(problem.weights)
    for _ in range(3):
        down = [-part for part in slope(hand.weights, *problem.data(problem.forget))]
        norm = torch.cat([part.flatten() for part in down]).norm()
        scale = 1.0 if clip is None else min(1.0, clip / (float(norm) + 1e-6))
        hand.step([scale * part for part in down])
    agree(problem, GradientAscent(epochs=3, clip=clip, **SGD), hand.weights)


def relabelled(problem) -> tuple[Tensor, Tensor]:
    inputs, targets = problem.data(problem.forget)
    return inputs, (targets + 1) % 3


def test_random_label(problem) -> None:
    hand = ByHand(problem.weights)
    for _ in range(2):
        hand.step(slope(hand.weights, *relabelled(problem)))
        hand.step(slope(hand.weights, *problem.data(problem.retain)))
    agree(problem, RandomLabel(epochs=2, **SGD), hand.weights)


def boundary(problem, bound: float) -> tuple[Tensor, Tensor]:
    """The forget records under the likeliest other class one signed step up their loss, written out."""
    inputs, targets = problem.data(problem.forget)
    point = inputs.clone().requires_grad_()
    losses(problem.weights, point, targets).sum().backward()
    low, high = problem.task.domain
    edge = torch.minimum(torch.maximum(inputs + bound * (high - low) * point.grad.sign(), low), high)
    first, first_bias, last, last_bias = problem.weights
    logits = torch.tanh(edge @ first.T + first_bias) @ last.T + last_bias
    logits[torch.arange(len(targets)), targets] = -torch.inf
    return inputs, logits.argmax(1)


@pytest.mark.parametrize("repair", [False, True])
def test_boundary_shrink(problem, repair) -> None:
    hand = ByHand(problem.weights)
    for _ in range(3):
        hand.step(slope(hand.weights, *boundary(problem, 0.3)))
        if repair:
            hand.step(slope(hand.weights, *problem.data(problem.retain)))
    agree(problem, BoundaryShrink(epochs=3, bound=0.3, repair=repair, **SGD), hand.weights)


def test_the_nearest_class_is_never_the_records_own(problem) -> None:
    for bound in (1e-6, 0.1, 1.0):
        _, labels = boundary(problem, bound)
        found = nearest_classes(
            problem.trained().model, problem.task, problem.forget, bound, batch_size=2, meter=Meter()
        )
        assert found.tolist() == labels.tolist()
        assert not (found == problem.forget.targets).any()


def test_l1_sparse(problem) -> None:
    hand = ByHand(problem.weights)
    for alpha in (0.3, 0.15, 0.0):  # α(1 − epoch/(3 − 1)) in two epochs, then one without
        gradients = slope(hand.weights, *problem.data(problem.retain))
        hand.step([part + alpha * weight.sign() for part, weight in zip(gradients, hand.weights, strict=True)])
    agree(problem, L1Sparse(alpha=0.3, epochs=3, epochs_without_l1=1, **SGD), hand.weights)


@pytest.mark.parametrize("order", ["by task", "joint"])
def test_salun(problem, order) -> None:
    saliency = [part.abs() for part in slope(problem.weights, *problem.data(problem.forget), how="sum")]
    everything = torch.cat([part.flatten() for part in saliency])
    lowest = everything.sort(descending=True).values[round(0.4 * len(everything)) - 1]
    masks = [(part >= lowest).double() for part in saliency]
    hand = ByHand(problem.weights)
    for _ in range(2):
        if order == "joint":
            gone, kept = (slope(hand.weights, *data) for data in (relabelled(problem), problem.data(problem.retain)))
            hand.step([one + 0.3 * other for one, other in zip(gone, kept, strict=True)], masks)
            continue
        hand.step(slope(hand.weights, *relabelled(problem)), masks)
        hand.step(slope(hand.weights, *problem.data(problem.retain)), masks)
    agree(problem, SalUn(share=0.4, epochs=2, order=order, alpha=0.3, **SGD), hand.weights)


def direction(problem) -> Tensor:
    gone = flat(slope(problem.weights, *problem.data(problem.forget), how="sum"))
    kept = flat(slope(problem.weights, *problem.data(problem.retain), how="sum"))
    return gone / 16 - 5 / (16 * 11) * kept


def of_flat(problem, vector: Tensor) -> Tensor:
    parts = vector.split([weight.numel() for weight in problem.weights])
    inputs, targets = problem.data(problem.retain)
    return losses([part.view(w.shape) for part, w in zip(parts, problem.weights, strict=True)], inputs, targets).mean()


def dense_curvature(problem, kind: str) -> Tensor:
    if kind == "fisher":
        gradients = single_gradients(problem, problem.retain)
        return gradients.T @ gradients / len(gradients)
    vector = flat(problem.weights)
    if kind == "exact":
        return torch.autograd.functional.hessian(lambda v: of_flat(problem, v), vector)
    inputs, _ = problem.data(problem.retain)

    def logits(v: Tensor) -> Tensor:
        first, first_bias, last, last_bias = (
            part.view(w.shape)
            for part, w in zip(v.split([w.numel() for w in problem.weights]), problem.weights, strict=True)
        )
        return torch.tanh(inputs @ first.T + first_bias) @ last.T + last_bias

    jacobian = torch.autograd.functional.jacobian(logits, vector)  # (11, 3, p)
    posterior = logits(vector).softmax(1)
    bend = torch.diag_embed(posterior) - posterior[:, :, None] * posterior[:, None, :]
    return torch.einsum("nkp,nkl,nlq->pq", jacobian, bend, jacobian) / 11


@pytest.mark.parametrize("kind", ["fisher", "ggn", "exact"])
@pytest.mark.parametrize("extra", [{}, {"vectorised": False}, {"memory": 0.0}], ids=["vmap", "loop", "cg"])
def test_influence(problem, kind, extra) -> None:
    damping = 2.0 if kind == "exact" else 0.01  # this Hessian has negative eigenvalues
    system = dense_curvature(problem, kind) + damping * torch.eye(31, dtype=torch.float64)
    step = 3.0 * torch.linalg.solve(system, direction(problem))
    settings = {"alpha": 3.0, "damping": damping, "samples": None, "tolerance": 1e-10, **extra}
    agree(problem, Influence(curvature=kind, **settings), moved(problem, step))


def test_influence_published(problem) -> None:
    """The public recursion in vectors, in the order in which the method reads the records."""
    order = torch.randperm(11, generator=Rng(0).child("curvature").torch())[: 4 + 2]
    gradients = single_gradients(problem, problem.retain)[order]
    k, o = direction(problem), gradients[0].clone()
    for gradient in gradients[1:]:
        overlap = o @ gradient
        k = k - (k @ gradient) / (4 + overlap) * o
        o = o - overlap / (4 + overlap) * o
    agree(problem, Influence(alpha=3.0, solver="published", samples=4), moved(problem, 3.0 * k))


def test_single_gradient(problem) -> None:
    back = slope(problem.initial, *problem.data(problem.forget), how="sum")
    expected = [weight + 0.3 * 2 / 4 * part for weight, part in zip(problem.weights, back, strict=True)]
    agree(problem, SingleGradient(lr=0.3, epochs=2, batch_size=4), expected)


def test_retrain_starts_from_fresh_weights_and_steps_on_the_retain_set(digits, digits_task, digits_few) -> None:
    """One full-batch step of softmax regression from the weights that the same stream gives."""
    from palimpsest.models.linear import Linear
    from palimpsest.unlearn.retrain import Retrain

    recipe = Recipe(epochs=1, batch_size=999, lr=0.5, momentum=0.0, weight_decay=0.0, schedule="constant")
    trained = Plain().fit(digits_task, digits_few, recipe, Linear(), rng=Rng(1))
    forget, retain = digits_few.take(list(range(20))), digits_few.take(list(range(20, 200)))
    result = Retrain().unlearn(trained, retain, forget, rng=Rng(2))
    start = Linear().build(digits_task, Rng(2))
    weight, bias = (p.detach().double().requires_grad_() for p in start.parameters())
    batch = retain.batch()
    inputs = ((batch.inputs["image"].double() - 0.5) / 0.25).flatten(1)
    logits = inputs @ weight.T + bias
    (logits.logsumexp(1) - logits[torch.arange(180), batch.targets]).mean().backward()
    for parameter, old in zip(result.model.parameters(), (weight, bias), strict=True):
        step = parameter.detach().double() - old.detach()
        assert float((step + 0.5 * old.grad).norm() / (0.5 * old.grad).norm()) < 1e-5
