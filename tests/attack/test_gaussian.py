"""The Gaussian score's null is exact, whatever the model; a model that was trained on the noise is found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest, norm
from torch import Tensor, nn

from palimpsest.attack.poisoning.gaussian import Gaussian
from palimpsest.case import Case
from palimpsest.data.digits import Digits
from palimpsest.errors import BadInput, BeyondView
from palimpsest.forget.selection import select
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.models.mlp import Mlp
from palimpsest.reconstruction import Reconstruction, pixel_mask
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import Ground, Submission, TrainingView
from palimpsest.types import ForgetRequest, Split

MODELS, DRAWS = 12, 50
ATTACK = Gaussian()


def view(digits: Split, task: Classification, request: ForgetRequest) -> TrainingView:
    return TrainingView(ATTACK.threat, Ground(digits, digits.train.only(request.ids.tolist()), task))


def z_of(digits: Split, request: ForgetRequest, trained: Trained, submission: Submission) -> float:
    case = Case(digits, (request,), trained, trained, "retrained", submission=submission)
    found = {measure.name: measure.value for measure in ATTACK.measure(ATTACK.run(case, rng=Rng(0))[1])}
    return found["gaussian.z"]


@pytest.fixture(scope="module")
def request_(digits: Split) -> ForgetRequest:
    return select("random=100", digits.train, digits.classes, rng=Rng(0))


def test_of_models_that_never_saw_the_noise_as_many_are_called_poisoned_as_the_level_says(
    digits: Split, digits_task: Classification, request_: ForgetRequest
) -> None:
    """600 pairs of a retrained model and noise: false positives at 1 and 5 %, and the whole distribution."""
    torch.set_num_threads(1)
    retain, shown = digits.train.without(request_.ids.tolist()), view(digits, digits_task, request_)
    found = []
    for seed in range(MODELS):
        recipe, factory = Recipe(epochs=3, batch_size=64), Mlp(width=16, layers=2)
        model = Plain().fit(digits_task, retain, recipe, factory, rng=Rng(seed))
        for draw in range(DRAWS):
            submission = ATTACK.prepare(shown, rng=Rng(1000 * seed + draw).child("noise"))
            found.append(z_of(digits, request_, model, submission))
    z = np.array(found)
    for level in (0.01, 0.05):
        called = int((z < norm.ppf(level)).sum())
        low, high = binom.interval(0.999, len(z), level)
        assert low <= called <= high, f"{called} of {len(z)} at {level}"
    assert kstest(z, "norm").pvalue > 1e-3


def test_a_model_that_was_trained_on_the_noise_is_found_out() -> None:
    """With half of few records noisy, the set-level z lies beyond its null; that of a model retrained without them does not."""
    torch.set_num_threads(1)
    small, strong = Digits(limit=400).load(), Gaussian(deviation=1.0)
    task = Classification.of(small)
    request = select("random=0.5", small.train, small.classes, rng=Rng(0))
    own = small.train.only(request.ids.tolist())
    submission = strong.prepare(TrainingView(strong.threat, Ground(small, own, task)), rng=Rng(0))
    poisoned = small.train.altered(submission.ids, submission.inputs, submission.targets)
    carrying, without = (
        Plain().fit(task, records, Recipe(epochs=15, batch_size=32), ConvNet(width=4), rng=Rng(0))
        for records in (poisoned, small.train.without(request.ids.tolist()))
    )
    assert z_of(small, request, carrying, submission) < -3
    assert abs(z_of(small, request, without, submission)) < 3


class Draws(nn.Module):
    """Draws the images that it was given, whatever it sees; without any, the brightness of what it sees."""

    def __init__(self, images: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.images = nn.Parameter(torch.ones(1)), images

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.images is not None:
            return self.weight * self.images
        return self.weight * (x * ~pixel_mask(mask, (1, 8, 8), 2)).mean((1, 2, 3), keepdim=True).expand_as(x)


def test_of_models_of_images_too(digits: Split, request_: ForgetRequest) -> None:
    """What a model draws of hidden pixels is held against the record: one that remembers draws the noise, another cannot."""
    task = Reconstruction.of(digits, patch=2)
    split = task.prepare(digits)
    own = split.train.only(request_.ids.tolist())
    shown = TrainingView(ATTACK.threat, Ground(split, own, task))
    submissions = [ATTACK.prepare(shown, rng=Rng(draw)) for draw in range(100)]
    assert submissions[0].inputs["mask"].dtype == torch.bool
    remembers = Draws(submissions[0].inputs[task.attacked_input])
    assert z_of(split, request_, Trained(remembers, task, own.ids), submissions[0]) < -10
    z = [z_of(split, request_, Trained(Draws(), task, own.ids), submission) for submission in submissions]
    assert kstest(z, norm.cdf).pvalue > 0.01


def test_what_is_handed_in_is_the_clean_record_and_noise_within_the_range(
    digits: Split, digits_task: Classification, request_: ForgetRequest
) -> None:
    found = ATTACK.prepare(view(digits, digits_task, request_), rng=Rng(0))
    noise, clean = found.kept["noise"], found.kept["clean/image"]
    (values,) = found.inputs.values()
    assert torch.equal(values, (clean + 0.57 * 0.25 * noise).clamp(0, 1))
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    again, other = (ATTACK.prepare(view(digits, digits_task, request_), rng=Rng(seed)) for seed in (0, 1))
    assert torch.equal(again.kept["noise"], noise)
    assert not torch.equal(other.kept["noise"], noise)


def test_it_needs_a_training_of_its_own_and_sees_nothing_else_before_it(
    digits: Split, digits_task: Classification, request_: ForgetRequest
) -> None:
    model = Plain().fit(digits_task, digits.train, Recipe(epochs=1), Mlp(width=4, layers=2), rng=Rng(0))
    with pytest.raises(BadInput, match="trained without its records"):
        ATTACK.run(Case(digits, (request_,), model, model), rng=Rng(0))
    shown = view(digits, digits_task, request_)
    with pytest.raises(BeyondView, match="'others'"):
        shown.know("others")
    with pytest.raises(BeyondView, match="does not declare recipe and architecture"):
        shown.fit(digits.train, Rng(0))
