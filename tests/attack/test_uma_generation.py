"""The attack on models of images against one whose best input is known: it draws a constant, the mean of what it sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest.attack.residual._drawn import Hidden
from palimpsest.attack.residual.uma_generation import UmaGeneration
from palimpsest.case import Case
from palimpsest.errors import BadInput, ContractError
from palimpsest.learn._extractor import Extractor, seen, trained_here
from palimpsest.learn.base import Trained
from palimpsest.models.convnet import ConvNet
from palimpsest.reconstruction import Reconstruction, pixel_mask
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples, ForgetRequest, Scores, Split


class Mean(nn.Module):
    """Draws the mean of the visible pixels, and a constant added, everywhere."""

    def __init__(self, more: float) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.tensor(more))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        open_ = ~pixel_mask(mask, (1, 8, 8), 2)
        mean = (image * open_).sum((2, 3), keepdim=True) / open_.sum((2, 3), keepdim=True)
        return (mean + self.more).expand_as(image)


class Eye(nn.Module):
    """Features: the mean of each column; posteriors of two classes by the brightness."""

    def encode(self, images: Tensor) -> Tensor:
        return images.mean((1, 2))

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3))
        return torch.stack([bright, 1 - bright], 1)


@pytest.fixture(scope="module")
def posed(digits: Split) -> tuple[Reconstruction, Split]:
    task = Reconstruction.of(digits, 2)
    return task, replace(task.prepare(digits), train=task.prepare(digits).train.take(list(range(60))))


def case(posed: tuple[Reconstruction, Split], more: float) -> Case:
    task, split = posed
    ids = split.train.ids[split.train.targets.numpy() == 0]
    original, subject = (Trained(Mean(value), task, split.train.ids) for value in (0.0, more))
    return Case(split, (ForgetRequest(ids, "class=0"),), original, subject, extract=lambda wanted, split: Eye())


def run(here: Case, **settings: object) -> tuple[UmaGeneration, Tensor, Scores]:
    attack = UmaGeneration(**{"steps": 60, "batch_size": 7, **settings})  # type: ignore[arg-type]
    guess, scores = attack.run(here, rng=Rng(0))
    assert guess.gradients == 60 * len(attack.epsilon) * len(scores.ids)
    return attack, guess.tensors["attacked"], scores


def test_the_best_input_within_a_ball_is_found(posed: tuple[Reconstruction, Split]) -> None:
    """A model that draws 0.1 darker is brought back by visible pixels that are 0.1 brighter, as far as the ball and white allow."""
    here = case(posed, -0.1)
    _, attacked, scores = run(here, epsilon=(0.05, 1.0), step_size=0.005, unbounded_step=0.02)
    both = here.split.train.only(scores.ids.tolist())
    batch = both.take([both.ids.tolist().index(name) for name in scores.ids.tolist()]).batch()
    image, where = batch.inputs["image"], here.task.hidden_pixels(batch)  # type: ignore[attr-defined]
    visible = image[(~where)].view(len(image), -1)
    mean = visible.mean(1)
    wanted = mean.clamp(0, 1)
    clean = (mean - 0.1).clamp(0, 1) - wanted
    np.testing.assert_allclose(scores["l1"][:, 0], 255 * 32 * clean.abs().numpy(), rtol=1e-3, atol=1e-2)
    best = (torch.clamp(visible + 0.05, 0, 1).mean(1) - 0.1).clamp(0, 1) - wanted
    np.testing.assert_allclose(scores["l1"][:, 1], 255 * 32 * best.abs().numpy(), rtol=0.05, atol=30)
    assert scores["l1"][:, 2].max() < 255 * 32 * 0.02
    hidden = where.expand_as(image)
    moved = (attacked[:, 0] - image).abs()
    assert moved.max() <= 0.05
    assert moved[hidden].max() > 0  # the start's noise is there, and has no effect
    assert scores["group"].sum() == (scores["group"] == 0).sum()


def test_automatic_steps_come_nearer_than_steps_that_are_too_large(posed: tuple[Reconstruction, Split]) -> None:
    """Where the ball has room to spare the search is a matter of step size alone; a rule that halves it ends next to the goal."""
    here = case(posed, -0.1)
    large = {"epsilon": (0.3,), "step_size": 0.1}
    steady, automatic = (run(here, **large, step_rule=rule)[2]["l1"][:, 1].mean() for rule in ("constant", "automatic"))
    assert automatic < 0.3 * steady


def test_scores_are_told_of_the_right_images(posed: tuple[Reconstruction, Split]) -> None:
    """A subject that is the original: no distance before the attack, the truth's own features, likeness of 1."""
    attack, _, scores = run(case(posed, 0.0), epsilon=(8 / 255,))
    assert (scores["l1"][:, 0] == 0).all()
    assert (scores["resemblance"][:, 0] == 1).all()
    assert (scores["ssim"] <= 1).all()
    truth = dict(zip(scores.ids.tolist(), scores["features"][:, 0], strict=True))
    for name, features in truth.items():
        image = posed[1].train.only([name]).batch().inputs["image"]
        np.testing.assert_allclose(features, Eye().encode(image)[0].numpy(), rtol=1e-6)
    assert not np.allclose(scores["features"][:, 0], scores["features"][:, 1])
    found = {measure.key: measure for measure in attack.measure(scores)}
    assert found["uma_generation.forget_recovery_rate", (("epsilon", 0.0),)].value == 1.0
    for measure in found.values():
        assert measure.low <= measure.value <= measure.high, measure.name


def test_measures_by_hand() -> None:
    """Two forgotten and two retained records, one radius."""
    arrays = {
        "group": np.array([0, 0, 1, 1]),
        "label": np.zeros(4, dtype=int),
        "l1": np.array([[90.0, 30.0], [110.0, 10.0], [4.0, 2.0], [4.0, 2.0]]),
        "whole_l1": np.ones((4, 2)),
        "resemblance": np.array([[0.1, 0.4], [0.3, 0.8], [0.8, 0.75], [0.8, 0.85]]),
        "psnr": np.full((4, 2), 20.0),
        "ssim": np.full((4, 2), 0.5),
        "features": np.array([[[0.0], [3.0], [0.0]], [[2.0], [5.0], [2.0]]] * 2),
        "posteriors": np.array([[[1.0, 0.0]] * 3, [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]] * 2),
    }
    scores = Scores("record", np.array(list("abcd")), arrays, {"epsilon": (0.1,)})
    attack = UmaGeneration(epsilon=(0.1,), extractor="my_module:make")
    found = {(m.name.removeprefix("uma_generation."), m.at["epsilon"]): m.value for m in attack.measure(scores)}
    assert found["forget_l1", 0.0] == 100
    assert found["forget_l1", 0.1] == 20
    assert found["forget_l1_ratio", 0.1] == 5
    assert found["forget_recovery_rate", 0.0] == pytest.approx(0.25)
    assert found["forget_recovery_rate", 0.1] == pytest.approx(0.75)
    assert found["forget_fid_my_module_make", 0.0] == pytest.approx(9.0)
    assert found["forget_fid_my_module_make", 0.1] == pytest.approx(0.0, abs=1e-9)
    assert found["forget_is_my_module_make", 0.0] == pytest.approx(1.0)
    assert found["forget_is_my_module_make", 0.1] == pytest.approx(2.0)


def test_pictures_are_truth_seen_and_drawn(posed: tuple[Reconstruction, Split]) -> None:
    here = case(posed, -0.1)
    guess, scores = UmaGeneration(epsilon=(0.05, 1.0), steps=3).run(here, rng=Rng(0))
    pictures = guess.tensors["pictures"]
    shown = scores["pictured"] == 1
    assert scores["group"][shown].tolist() == [0] * 4 + [1] * 2
    assert pictures.shape == (6, 6, 1, 8, 8)
    batch = Examples.joined([here.forget, here.retain]).only(scores.ids[shown].tolist()).batch()
    image, where = batch.inputs["image"], here.task.hidden_pixels(batch)  # type: ignore[attr-defined]
    assert torch.equal(pictures[:, 0], image)
    assert (pictures[:, 1][where] == 0.5).all()
    for row in range(2, 6):
        assert torch.equal(pictures[:, row][~where], image[~where]), row
    assert (pictures[:, 3] <= pictures[:, 2]).all()


def test_a_guess_that_leaves_its_ball_is_refused(posed: tuple[Reconstruction, Split]) -> None:
    here, attack = case(posed, -0.1), UmaGeneration(epsilon=(0.05,), steps=2)
    guess, _ = attack.run(here, rng=Rng(0))
    moved = guess.tensors["attacked"].clone()
    moved[0, 0, 0, 0, 0] = (moved[0, 0, 0, 0, 0] + 0.5) % 1.0
    with pytest.raises(ContractError, match=r"expected at most ε = 0\.05"):
        attack.score(replace(guess, tensors={"attacked": moved}), here)


def test_hidden_answers_are_zero_where_all_is_seen(posed: tuple[Reconstruction, Split]) -> None:
    task, split = posed
    batch = split.train.batch(torch.arange(3))
    answer = Hidden(Mean(0.2), task)(batch.inputs["image"], batch.inputs["mask"])
    where = task.hidden_pixels(batch)
    assert (answer[~where] == 0).all()
    assert (answer[where] > 0).all()


def test_an_extractor_is_trained_on_images_alone_and_needs_features(digits: Split) -> None:
    split = Reconstruction.of(digits, 2).prepare(digits)
    wanted = Extractor("resnet18", 4, 1)
    few = replace(split, train=split.train.take(list(range(100))))
    one, two = (trained_here(wanted, few) for _ in range(2))
    images = split.test.take([0, 1, 2]).batch().inputs["image"]
    features, posteriors = seen(one, images, "resnet18")
    assert features.shape == (3, 32)
    torch.testing.assert_close(posteriors.sum(1), torch.ones(3))
    assert torch.equal(features, seen(two, images, "resnet18")[0])
    with pytest.raises(BadInput, match="convnet: got a model without `encode`"):
        seen(ConvNet(width=2).build(Classification.of(digits), Rng(0)), images, "convnet")


def test_an_extractor_of_ones_own(digits: Split) -> None:
    wanted = Extractor(f"{__name__}:Eye", 1, 1)
    assert wanted.short.endswith("test_uma_generation_Eye")
    assert type(trained_here(wanted, digits)).__name__ == "Eye"
    with pytest.raises(BadInput, match=r"got dict, expected a torch\.nn\.Module"):
        Extractor("builtins:dict", 1, 1).module()
    with pytest.raises(BadInput, match="got TypeError"):
        Extractor(f"{__name__}:Mean", 1, 1).module()
