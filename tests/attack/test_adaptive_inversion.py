"""What an attacker who knows the defence does not look at, and that it helps."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage._matching import Descent, match
from palimpsest.attack.leakage.adaptive_inversion import AdaptiveInversion, drift, kept, rounded, unexplained
from palimpsest.attack.leakage.feature_inversion import FeatureInversion, difference
from palimpsest.case import Case
from palimpsest.defend.pruning import Pruning
from palimpsest.defend.rounding import Rounding
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import View
from palimpsest.types import Examples, ForgetRequest, Split
from palimpsest.unlearn.base import Unlearner

QUICK = Descent(iterations=300, restarts=1, lr=0.04, total_variation=0.0, weight_decay=0.0, batching="loop")


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


def deleted(model: nn.Module, digits: Split, task: Classification) -> tuple[Tensor, Tensor, nn.Module]:
    """A record, its label as shares, and the model after a step up its loss."""
    one, after = digits.train.take([0]), copy.deepcopy(model)
    slopes = torch.autograd.grad(task.loss(after, one.batch()), list(after.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(after.parameters(), slopes, strict=True):
            parameter += 1e-2 * slope
    truth = one.batch().inputs[task.attacked_input]
    return truth, F.one_hot(one.targets, 10).float(), after


def test_pruned_weights_are_not_compared(digits_mlp: nn.Module, digits: Split, digits_task: Classification) -> None:
    truth, shares, after = deleted(digits_mlp, digits, digits_task)
    with torch.no_grad():
        for parameter in after.parameters():
            if parameter.dim() > 1:
                parameter[parameter.abs() < parameter.abs().quantile(0.5)] = 0
    wanted = difference(digits_mlp, after)
    factors = kept(wanted, list(after.parameters()))
    assert {float(value) for factor in factors for value in factor.unique()} == {0.0, 1.0}
    plain = match(digits_mlp, digits_task, wanted, shares, QUICK, rng=Rng(0))
    knows = match(digits_mlp, digits_task, wanted, shares, QUICK, emphasis=factors, rng=Rng(0))
    assert psnr(knows.inputs[0], truth) > psnr(plain.inputs[0], truth) + 6


def test_layers_that_noise_explains_do_not_count() -> None:
    draw = torch.Generator().manual_seed(0)
    still, moved = (0.1 * torch.randn(4000, generator=draw, dtype=torch.float64) for _ in range(2))
    moved[:400] += 1.0
    silent, loud = (float(factor[0]) for factor in unexplained([still, moved], []))
    assert silent < 0.1
    assert loud > 0.85
    assert all(bool((factor == 1).all()) for factor in unexplained([torch.ones(5), torch.ones(5)], []))


def test_the_classes_mean_gradients_are_left_out(
    digits_mlp: nn.Module, digits: Split, digits_task: Classification
) -> None:
    known = digits.test.take(list(range(60)))
    basis = drift(copy.deepcopy(digits_mlp), digits_task, known)
    flat = torch.stack([torch.cat([part.flatten() for part in one]) for one in basis])
    torch.testing.assert_close(flat @ flat.T, torch.eye(10, dtype=torch.float64), atol=1e-8, rtol=0)
    some = known.take((known.targets == 3).nonzero()[:, 0])
    model = copy.deepcopy(digits_mlp)
    slopes = torch.autograd.grad(digits_task.loss(model, some.batch()), list(model.parameters()))
    slope = torch.cat([part.flatten() for part in slopes]).double()
    assert float((slope - (flat @ slope) @ flat).norm()) < 1e-5 * float(slope.norm()), "it lies in what is left out"


def test_what_is_left_out_does_not_disturb(digits_mlp: nn.Module, digits: Split, digits_task: Classification) -> None:
    """Steps on other records are a hundred times the deletion; without their direction the record is found all the same."""
    truth, shares, after = deleted(digits_mlp, digits, digits_task)
    wanted = difference(digits_mlp, after)
    others = copy.deepcopy(digits_mlp)
    slopes = torch.autograd.grad(digits_task.loss(others, digits.test.batch()), list(others.parameters()))
    length = sum(float(part.double().square().sum()) for part in slopes) ** 0.5
    direction = [part.double() / length for part in slopes]
    size = sum(float(part.square().sum()) for part in wanted) ** 0.5
    moved = [part + 100 * size * along for part, along in zip(wanted, direction, strict=True)]
    plain = match(digits_mlp, digits_task, moved, shares, QUICK, rng=Rng(0))
    knows = match(digits_mlp, digits_task, moved, shares, QUICK, without=[direction], rng=Rng(0))
    assert psnr(knows.inputs[0], truth) > psnr(plain.inputs[0], truth) + 6
    assert float(knows.loss) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_one_who_rounds_the_original_too_has_a_difference_nearer_to_the_true_one(
    digits_mlp: nn.Module, digits: Split, digits_task: Classification, kind: str
) -> None:
    """Weights that hardly moved are rounded equally; compared with the original as it is, each brings its rounding error."""
    _, _, after = deleted(digits_mlp, digits, digits_task)
    release = Rounding(format=kind)  # type: ignore[arg-type]
    served = release.release(release.part(digits_task), after)
    before, stored = list(digits_mlp.parameters()), list(served.parameters())
    true, plain = (torch.cat([part.flatten() for part in difference(digits_mlp, model)]) for model in (after, served))
    alike = torch.cat([part.flatten() for part in rounded(before, stored, getattr(torch, kind))])
    sees = [float(F.cosine_similarity(true, found, 0)) for found in (plain, alike)]
    assert sees[1] > sees[0] + 0.1
    assert float((alike == 0).double().mean()) > 0.5
    assert rounded(before, [weight.to(getattr(torch, kind)) for weight in before], getattr(torch, kind)) == []


def test_behind_rounding_that_difference_is_what_is_inverted(
    digits_mlp: nn.Module, digits: Split, digits_task: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rounded models are equal, the difference from the original as it is, so that there is an answer."""
    _, _, after = deleted(digits_mlp, digits, digits_task)
    release, heard = Rounding(format="bfloat16"), list[list[Tensor]]()
    invert = AdaptiveInversion.invert

    def listening(self: AdaptiveInversion, model: nn.Module, task: Classification, wanted: Any, *more: Any) -> Guess:
        heard.append(wanted)
        return invert(self, model, task, wanted, *more)

    monkeypatch.setattr(AdaptiveInversion, "invert", listening)
    attack = AdaptiveInversion(defence="rounding", format="bfloat16", iterations=2, restarts=1, batching="loop")
    original = Trained(digits_mlp, digits_task, digits.train.ids)
    request = ForgetRequest(digits.train.ids[:1], "one record")
    for model in (after, digits_mlp):
        served = original.with_model(release.release(release.part(digits_task), model).eval())
        attack.observe(View(attack.threat, Case(digits, (request,), original, served)), rng=Rng(0))
    short = [weight.bfloat16().double() for weight in digits_mlp.parameters()]
    for moved, end, start in zip(heard[0], after.parameters(), short, strict=True):
        assert torch.equal(moved, end.detach().bfloat16().double() - start)
    for moved, start, weight in zip(heard[1], short, digits_mlp.parameters(), strict=True):
        assert torch.equal(moved, start - weight.detach().double())


@dataclass(frozen=True)
class Step(Unlearner):
    """A step up the loss of what is forgotten, at the model itself."""

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        weights = list(model.eval().parameters())
        slopes = torch.autograd.grad(trained.task.loss(model, forget.batch()), weights)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight += 1e-2 * slope


@pytest.mark.slow
def test_behind_pruning_itself_one_who_knows_of_it_sees_more(
    digits_mlp: nn.Module, digits: Split, digits_task: Classification
) -> None:
    original, release, gained = Trained(digits_mlp, digits_task, digits.train.ids), Pruning(share=0.5), []
    search = {"iterations": 400, "restarts": 1, "total_variation": 0.0, "batching": "loop"}
    search |= {"extractor_width": 2, "extractor_epochs": 1, "decoys": 20}
    for place in range(4):
        request = ForgetRequest(digits.train.ids[place : place + 1], "one record")
        one, retain = digits.train.only(request.ids.tolist()), digits.train.without(request.ids)
        stepped = Step().unlearn(original, retain, one, rng=Rng(0))
        part = release.part(digits_task)
        served = replace(stepped, model=release.release(part, stepped.model).eval())
        case = Case(digits, (request,), original, served)
        truth = one.batch().inputs[digits_task.attacked_input]
        plain, knows = (
            attack.run(case, rng=Rng(0))[0].tensors["recovered"]
            for attack in (FeatureInversion(**search), AdaptiveInversion(defence="pruning", **search))
        )
        gained.append(psnr(knows, truth) - psnr(plain, truth))
    assert sum(gained) / len(gained) > 3
