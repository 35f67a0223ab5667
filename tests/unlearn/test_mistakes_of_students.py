"""Mistakes that public code of the freezing, distilling and noisy methods really makes: each test is named after one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import blocks
from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.catastrophic_forgetting_k import CatastrophicForgettingK
from palimpsest.unlearn.exact_unlearning_k import ExactUnlearningK
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.noisy_gradient_descent import NoisyGradientDescent
from palimpsest.unlearn.scrub import Scrub
from palimpsest.unlearn.scrub_rewind import ScrubRewind


@pytest.fixture(scope="module")
def trained(digits_task, few) -> Trained:
    return Plain().fit(digits_task, few, Recipe(epochs=4, batch_size=64), ConvNet(width=2), rng=Rng(0))


@pytest.fixture(scope="module")
def few(digits) -> Examples:
    return digits.train.take(list(range(200)))


@pytest.fixture(scope="module")
def forget(few) -> Examples:
    return few.take(few.targets.numpy() == 0)


@pytest.fixture(scope="module")
def retain(few, forget) -> Examples:
    return few.without(forget.ids)


@pytest.mark.parametrize("method", [ExactUnlearningK(k=2, epochs=1), CatastrophicForgettingK(k=2, epochs=1)])
def test_frozen_layers_that_move(method, trained, retain, forget) -> None:
    """Weights and running statistics of the frozen blocks are bit-identical under momentum and decay; the last ones move."""
    result = method.unlearn(trained, retain, forget, rng=Rng(1))
    pairs = list(zip(blocks(trained.model), blocks(result.model), strict=True))
    for index, (old, new) in enumerate(pairs):
        kept = {name: torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items()}
        if index < len(pairs) - 2:
            assert all(kept.values()), kept
        else:
            assert not any(same for name, same in kept.items() if not name.endswith("num_batches_tracked")), kept


def test_blocks_that_are_not_there(trained, retain, forget) -> None:
    with pytest.raises(BadInput, match="at most 8"):
        CatastrophicForgettingK(k=9).unlearn(trained, retain, forget, rng=Rng(1))
    with pytest.raises(BadInput, match="at least 1"):
        ExactUnlearningK(k=0)


def test_eu_k_that_does_not_start_again(trained, retain, forget) -> None:
    """Without training, the head is one that the factory gives, and not the trained one."""
    short = ExactUnlearningK(k=1, epochs=1, lr=1e-30, weight_decay=0.0).unlearn(trained, retain, forget, rng=Rng(1))
    fresh = ConvNet(width=2).build(trained.task, Rng(1).child("fresh"))
    head = [blocks(model)[-1].weight for model in (short.model, fresh, trained.model)]
    torch.testing.assert_close(head[0], head[1])
    assert not torch.allclose(head[0], head[2])


def divergence(teacher: nn.Module, student: nn.Module, records: Examples) -> float:
    inputs = records.batch().inputs["image"]
    with torch.no_grad():
        return float(F.kl_div(student(inputs).log_softmax(1), teacher(inputs).softmax(1), reduction="batchmean"))


def test_scrub_whose_forget_pass_does_not_ascend(trained, retain, forget) -> None:
    """The distance to the teacher on the forget set rises in the max phase; a teacher that shares weights would give 0."""
    common = {"lr": 0.05, "epochs": 1, "gamma": 0.0, "alpha": 0.0, "forget_batch_size": 4}
    ascended = Scrub(max_epochs=1, **common).unlearn(trained, retain, forget, rng=Rng(1))
    still = Scrub(max_epochs=0, weight_decay=0.0, **common).unlearn(trained, retain, forget, rng=Rng(1))
    assert (
        divergence(trained.model, ascended.model, forget) > 10 * divergence(trained.model, still.model, forget) + 1e-3
    )


def test_scrub_pulls_the_retain_set_back(trained, retain, forget) -> None:
    common = {"lr": 0.02, "epochs": 3, "max_epochs": 1, "forget_batch_size": 8, "gamma": 0.0}
    loose, tied = (
        Scrub(alpha=alpha, **common).unlearn(trained, retain, forget, rng=Rng(1)).model for alpha in (0.0, 1.0)
    )
    assert divergence(trained.model, tied, retain) < 0.5 * divergence(trained.model, loose, retain)


def test_noise_that_is_parsed_and_never_added(trained, retain, forget) -> None:
    """Without noise it is fine-tuning, bit for bit; with noise the distance is that of a random walk."""
    common = {"lr": 0.01, "epochs": 2, "batch_size": 64, "momentum": 0.0, "weight_decay": 0.0}
    quiet = NoisyGradientDescent(sigma=0.0, **common).unlearn(trained, retain, forget, rng=Rng(1)).model
    plain = Finetune(**common).unlearn(trained, retain, forget, rng=Rng(1)).model
    assert all(torch.equal(a, b) for a, b in zip(quiet.parameters(), plain.parameters(), strict=True))
    noisy = (
        NoisyGradientDescent(sigma=1e-6, noise="update", **common).unlearn(trained, retain, forget, rng=Rng(1)).model
    )
    apart = torch.cat([(a - b).flatten() for a, b in zip(noisy.parameters(), quiet.parameters(), strict=True)])
    steps = 2 * 3
    assert float(apart.detach().std()) == pytest.approx(1e-6 * steps**0.5, rel=0.25)


def test_rewinding_keeps_the_epoch_that_forgot_as_far_as_unseen_records(digits, digits_task, few) -> None:
    """The weights that come out are those after one of the epochs, and of these the one nearest to the goal. At which rate that is
    not the last epoch depends on the processor's last digits."""
    good = Plain().fit(digits_task, few, Recipe(epochs=10, batch_size=20), ConvNet(width=4), rng=Rng(0))
    some = few.take(list(range(0, 200, 10)))
    rest = few.without(some.ids)

    def after(epochs: int, settings: dict[str, float]) -> nn.Module:
        return Scrub(**settings, epochs=epochs).unlearn(good, rest, some, rng=Rng(1)).model

    def error(model: nn.Module, records: Examples) -> float:
        with torch.no_grad():
            batch = records.batch()
            return float((model(batch.inputs["image"]).argmax(1) != batch.targets).float().mean())

    for lr in (0.004, 0.003, 0.008):
        settings = {"lr": lr, "forget_batch_size": 8, "batch_size": 64}
        models = [after(epochs, settings) for epochs in (1, 2, 3, 4)]
        goal = error(models[-1], digits.validation)
        apart = [abs(error(model, some) - goal) for model in models]
        nearest = apart.index(min(apart))
        if nearest < 3:
            break
    assert nearest < 3, "not merely the last one"
    assert max(apart) > min(apart) + 0.1, "the epochs differ"
    given = replace(good, validation=digits.validation)
    found = ScrubRewind(**settings, epochs=4).unlearn(given, rest, some, rng=Rng(1)).model
    same = [
        all(torch.equal(value, model.state_dict()[name]) for name, value in found.state_dict().items())
        for model in models
    ]
    assert same == [epoch == nearest for epoch in range(4)]


def test_rewinding_without_records_to_look_at(digits, trained, retain, forget) -> None:
    with pytest.raises(BadInput, match="no validation records"):
        ScrubRewind().unlearn(trained, retain, forget, rng=Rng(1))
    others = replace(trained, validation=digits.validation.take(digits.validation.targets.numpy() != 0))
    with pytest.raises(BadInput, match="no validation record of the forgotten classes"):
        ScrubRewind().unlearn(others, retain, forget, rng=Rng(1))
