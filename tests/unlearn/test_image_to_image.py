"""Methods for models of images: I2I's decoder does not move, its encoder comes to see noise, its first step is the paper's."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.masked_autoencoder import MaskedAutoencoder
from palimpsest.rng import Rng
from palimpsest.types import Examples, Split
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.image_to_image import ImageToImage, encoder
from palimpsest.unlearn.salun import SalUn

FACTORY = MaskedAutoencoder(patch=2, width=32, depth=1, heads=4, decoder_width=32, decoder_depth=1)


@pytest.fixture(scope="module")
def parted(digits: Split) -> tuple[Trained, Examples, Examples]:
    task = FACTORY.task(digits)
    train = task.prepare(digits).train.take(list(range(300)))
    recipe = Recipe(epochs=30, batch_size=32, optimizer="adamw", lr=3e-3)
    trained = Plain().fit(task, train, recipe, FACTORY, rng=Rng(0))
    return trained, train.take(train.targets != 0), train.take(train.targets == 0)


def test_only_the_encoder_moves(parted: tuple[Trained, Examples, Examples]) -> None:
    trained, retain, forget = parted
    after = ImageToImage(lr=1e-3, epochs=1).unlearn(trained, retain, forget, rng=Rng(1))
    before, batch = trained.model.state_dict(), retain.batch(torch.arange(1))
    moving = {id(parameter) for parameter in encoder(after.model, batch, "image")}
    assert moving == {
        id(parameter)
        for name, parameter in after.model.named_parameters()
        if name.startswith(("network.embed.", "network.encoder."))
    }
    for name, parameter in after.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) not in moving), name


@pytest.mark.parametrize(
    "method",
    [
        ImageToImage(lr=3e-3, epochs=10, batch_size=32, alpha=1.0),
        SalUn(lr=0.1, epochs=10, batch_size=32),
    ],
    ids=["image_to_image", "salun"],
)
def test_it_draws_noise_for_what_it_forgets_and_still_draws_the_rest(
    method: Unlearner, parted: tuple[Trained, Examples, Examples]
) -> None:
    trained, retain, forget = parted
    after = method.unlearn(trained, retain, forget, rng=Rng(1))
    task = trained.task
    with torch.no_grad():
        lost, kept = (
            [task.loss(model, part.batch()).item() for model in (trained.model, after.model)]
            for part in (forget, retain)
        )
    assert lost[1] > 1.2 * lost[0]
    assert kept[1] / kept[0] - 1 < 0.5 * (lost[1] / lost[0] - 1)


def test_the_first_loss_and_gradient_by_hand(parted: tuple[Trained, Examples, Examples]) -> None:
    """At θ₀ the retain term and its gradient vanish; a constant image stands for the noise."""
    trained, retain, forget = parted
    method, model = ImageToImage(noise="constant", alpha=0.7), copy.deepcopy(trained.model)
    kept, lost = retain.batch(torch.arange(8)), forget.batch(torch.arange(8))
    draw = Rng(0).torch()
    loss = method._loss(model.encode, trained.model.encode, kept, lost, "image", draw)  # type: ignore[arg-type]
    image, mask = lost.inputs["image"], lost.inputs["mask"]
    flat = torch.full_like(image, image.mean().item())
    network = model.network
    apart = network.encode((image - 0.5) / 0.25, mask) - network.encode((flat - 0.5) / 0.25, mask).detach()  # type: ignore[union-attr,operator]
    torch.testing.assert_close(loss, 0.7 * (apart**2).mean())
    weights = encoder(model, kept, "image")
    mine, expected = (torch.autograd.grad(value, weights) for value in (loss, 0.7 * (apart**2).mean()))
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("noise", ["normal", "uniform", "constant"])
def test_noise_is_an_image(noise: str) -> None:
    images = 0.3 + 0.1 * torch.randn(40, 1, 8, 8, generator=Rng(0).torch()).clamp(-2, 2)
    drawn = ImageToImage(noise=noise)._noise(images, Rng(1).torch())  # type: ignore[arg-type]
    assert drawn.shape == images.shape
    assert 0 <= drawn.min().item() <= drawn.max().item() <= 1
    mean, spread = {"normal": (0.3, 0.095), "uniform": (0.5, 0.289), "constant": (0.3, 0.0)}[noise]
    assert drawn.mean().item() == pytest.approx(mean, abs=0.02)
    assert drawn.std().item() == pytest.approx(spread, abs=0.02)


def test_a_model_without_an_encoder_is_refused(parted: tuple[Trained, Examples, Examples]) -> None:
    trained, retain, forget = parted

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return image * self.weight

    with pytest.raises(BadInput, match="image_to_image: got a Bare without `encode`"):
        ImageToImage().unlearn(replace(trained, model=Bare()), retain, forget, rng=Rng(1))


def test_a_classifier_is_refused(digits: Split, parted: tuple[Trained, Examples, Examples]) -> None:
    from palimpsest.models.linear import Linear
    from palimpsest.task import Classification

    task = Classification.of(digits)
    trained = Plain().fit(task, digits.train.take(list(range(60))), Recipe(epochs=0), Linear(), rng=Rng(0))
    with pytest.raises(BadInput, match="image_to_image: got a model of the task classification"):
        ImageToImage().unlearn(trained, digits.train.take([0, 1]), digits.train.take([2]), rng=Rng(0))


def test_steps_are_clipped_and_counted(parted: tuple[Trained, Examples, Examples]) -> None:
    trained, retain, forget = parted
    meter, model = Meter(), copy.deepcopy(trained.model)
    ImageToImage(epochs=2, batch_size=50).update(model, trained, retain, forget, rng=Rng(0), meter=meter)
    steps = 2 * -(-len(retain) // 50)
    assert meter.gradient_evaluations in (steps, steps - 2)  # a rest below an eighth joins the batch before it
    assert meter.samples >= 2 * len(retain) + meter.gradient_evaluations
