"""Defences against inversion weaken the attack that they name, on a linear model where nothing else stands in its way."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.attack.leakage._matching import Descent, match
from palimpsest.attack.leakage._probes import Probes, zeroth_order
from palimpsest.attack.leakage.feature_inversion import difference
from palimpsest.defend.base import Answering, Guarded, ModelRelease
from palimpsest.defend.finetuning import Finetuning
from palimpsest.defend.parameter_noise import ParameterNoise
from palimpsest.defend.pruning import Pruning
from palimpsest.defend.rounding import Rounding
from palimpsest.defend.top_k import TopK
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples, Split
from palimpsest.unlearn.base import Unlearner

STEEP = Descent(iterations=300, restarts=1, lr=0.04, total_variation=0.0, weight_decay=0.0, batching="loop")


@dataclass(frozen=True)
class Step(Unlearner):
    """A step of single-gradient size up the loss of what is forgotten."""

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor] | None:
        weights = list(model.eval().parameters())
        slopes = torch.autograd.grad(trained.task.loss(model, forget.batch()), weights)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight += 1e-3 * slope
        return None


@dataclass(frozen=True)
class Deletion:
    """A linear victim, a record of it, and what has to be found."""

    victim: Trained
    retain: Examples
    one: Examples
    truth: Tensor

    def served(self, unlearner: Unlearner, release: ModelRelease | None = None) -> nn.Module:
        after = unlearner.unlearn(self.victim, self.retain, self.one, rng=Rng(1)).model
        if release is None:
            return after
        part = release.part(self.victim.task)
        release.prepare(part, self.victim.task, self.retain, rng=Rng(2), meter=Meter())
        return release.release(part, after)

    def psnr(self, after: nn.Module) -> float:
        """Of what the plain attack makes of the two models."""
        task, shares = self.victim.task, F.one_hot(self.one.targets, 10).float()
        assert isinstance(task, Classification)
        found = match(self.victim.model, task, difference(self.victim.model, after), shares, STEEP, rng=Rng(0))
        return float(-10 * (found.inputs[found.best] - self.truth).square().mean().log10())


@pytest.fixture(scope="module")
def deletion(digits: Split, digits_task: Classification) -> Deletion:
    torch.set_num_threads(1)
    train = digits.train.take(list(range(300)))
    victim = Plain().fit(digits_task, train, Recipe(epochs=8, batch_size=32, lr=0.05), Linear(), rng=Rng(0))
    one = train.take([0])
    truth = one.batch().inputs[digits_task.attacked_input]
    return Deletion(victim, train.without(one.ids.tolist()), one, truth)


def test_undefended_the_record_is_recovered(deletion: Deletion) -> None:
    assert deletion.psnr(deletion.served(Step())) > 25


def test_noise_on_the_weights_hides_it(deletion: Deletion) -> None:
    guarded = Guarded(Step(), ParameterNoise(sigma=0.001))
    assert ParameterNoise.weakens == "feature_inversion"
    assert deletion.psnr(deletion.served(guarded)) < 15
    silent = Guarded(Step(), ParameterNoise(sigma=0.0))
    assert deletion.psnr(deletion.served(silent)) > 25, "it is the noise that hides it: nothing is cut"


@pytest.mark.parametrize("release", [Pruning(), Finetuning(), Rounding("bfloat16")])
def test_a_release_hides_it(deletion: Deletion, release: ModelRelease) -> None:
    assert release.weakens == "feature_inversion"
    assert deletion.psnr(deletion.served(Step(), release)) < 15


def test_the_weakest_settings_of_the_releases_do_not(deletion: Deletion) -> None:
    assert deletion.psnr(deletion.served(Step(), Pruning(share=0.0))) > 25
    assert deletion.psnr(deletion.served(Step(), Finetuning(lr=1e-7, steps=1))) > 25


def probes(model: nn.Module, task: Classification) -> Probes:
    def answer(inputs: Tensor) -> Tensor:
        return F.softmax(model(inputs), 1)

    classes = torch.arange(10).repeat_interleave(3)
    return zeroth_order(answer, task.shape, classes, domain=task.domain, rng=Rng(1), iterations=20, tries=3)


def test_few_posteriors_spoil_the_making_of_probes_and_not_what_is_answered_to_them(
    digits: Split, digits_task: Classification
) -> None:
    """Label inference climbs a posterior from noise, which top_k hides until the class is among the highest."""
    torch.set_num_threads(1)
    model = Plain().fit(digits_task, digits.train, Recipe(epochs=8, batch_size=64), Mlp(32, layers=2), rng=Rng(0)).model
    model.eval()
    bare, three, one = (
        probes(copy.deepcopy(model) if k is None else Answering(model, TopK(k=k)), digits_task) for k in (None, 3, 1)
    )
    assert TopK.weakens == "label_inference"
    accepted = [float(made.accepted.float().mean()) for made in (bare, three, one)]
    assert accepted[0] > 0.95
    assert accepted[2] < accepted[1] < accepted[0]
    assert accepted[2] < 0.6
    with torch.no_grad():
        shown, true = (F.softmax(each(bare.inputs), 1) for each in (Answering(model, TopK(k=1)), model))
    rows = bare.accepted.nonzero().flatten()
    torch.testing.assert_close(shown[rows, bare.classes[rows]], true[rows, bare.classes[rows]])
