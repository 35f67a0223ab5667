"""Extracted inversion: what two linear black boxes give away, what is asked of them, what cancels, and its refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage.extracted_inversion import ExtractedInversion, centred, ratios
from palimpsest.attack.leakage.feature_inversion import difference
from palimpsest.case import Case
from palimpsest.catalog import make
from palimpsest.errors import BadInput, BeyondView, UnknownName
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification, predict
from palimpsest.threat import PosteriorView, View
from palimpsest.types import Batch, Examples, ForgetRequest, Split

QUICK = ExtractedInversion(
    surrogate="linear",
    extraction_epochs=5,
    change_epochs=10,
    iterations=200,
    restarts=1,
    total_variation=0.0,
    batching="loop",
    decoys=60,
)


@pytest.fixture(scope="module")
def leak(digits: Split, digits_task: Classification) -> Case:
    """A linear victim, and the same after one plain step up the loss of one record, a tenth of the weights' length."""
    torch.set_num_threads(1)
    train = digits.train.take(list(range(300)))
    recipe = Recipe(epochs=4, batch_size=32, lr=0.05)
    victim = Plain().fit(digits_task, train, recipe, Linear(), rng=Rng(0))
    one, stepped = train.take([0]), copy.deepcopy(victim.model)
    weights = list(stepped.parameters())
    slopes = torch.autograd.grad(digits_task.loss(stepped, one.batch()), weights)
    lengths = [float(torch.cat([part.detach().flatten() for part in parts]).norm()) for parts in (weights, slopes)]
    with torch.no_grad():
        for weight, slope in zip(weights, slopes, strict=True):
            weight += 0.1 * lengths[0] / lengths[1] * slope
    request = ForgetRequest(one.ids, "one record")
    return Case(digits, (request,), victim, victim.with_model(stepped), extract=lambda wanted, split: Eye())


class Eye(nn.Module):
    """Stands in for a classifier that compares images."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        seen: Tensor = self.two(self.one(images))
        return seen.mean((2, 3))


class Box(PosteriorView):
    """A black box whose answers go through `change`; nothing else of its model can be had."""

    def __init__(self, trained: Trained, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(trained)
        inner, self.asked = self._answer, list[Tensor]()
        self._answer = lambda batch: change(inner(batch))

    def posterior(self, batch: Batch) -> Tensor:
        self.asked.append(batch.inputs["image"])
        return super().posterior(batch)

    def labels(self, batch: Batch) -> Tensor:
        raise AssertionError("labels: asked of a box of posteriors")

    def weights(self) -> nn.Module:
        raise AssertionError("weights: asked of a black box")


class Service(View):
    """What a user sees of two boxes. known: the records of its own."""

    __slots__ = ()

    def __init__(
        self, case: Case, known: Examples | None = None, change: Callable[[Tensor], Tensor] = lambda answer: answer
    ) -> None:
        super().__init__(QUICK.threat, case)
        self._models = {"before": Box(case.original, change), "after": Box(case.subject, change)}
        self._known |= {} if known is None else {"nonmembers": known}


@pytest.fixture(scope="module")
def seen(leak: Case) -> tuple[Service, Guess]:
    service = Service(leak)
    return service, QUICK.observe(service, rng=Rng(0))


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


def along(one: list[Tensor], other: list[Tensor]) -> float:
    ends = [torch.cat([part.flatten() for part in parts]) for parts in (one, other)]
    return float(torch.nn.functional.cosine_similarity(*ends, 0))


def told(case: Case) -> tuple[Tensor, Tensor]:
    one, other = (predict(case.task, trained.model, case.nonmembers) for trained in (case.original, case.subject))
    return one, other


def test_the_record_is_recovered_from_answers_alone(leak: Case, seen: tuple[Service, Guess]) -> None:
    _, guess = seen
    truth = leak.forget.batch().inputs["image"]
    noise = torch.rand(truth.shape, generator=Rng(3).torch())
    assert psnr(guess.tensors["recovered"], truth) > 15 > 10 > psnr(noise, truth)
    scores = QUICK.score(guess, leak)
    assert scores["rank"].tolist() == [1.0]
    found = {measure.name: measure.value for measure in QUICK.measure(scores) if not measure.at}
    assert found["extracted_inversion.agreement"] > 0.97
    assert 0.97 < found["extracted_inversion.explained"] <= 1
    assert "extracted_inversion.separable" not in found
    assert scores["separable"].tolist() == [1.0]


def test_it_asks_each_model_once_for_each_record_that_it_knows_and_for_nothing_else(
    leak: Case, seen: tuple[Service, Guess]
) -> None:
    service, guess = seen
    known = leak.nonmembers
    assert guess.queries == service.queries == 2 * len(known)
    for box in (service.before, service.after):
        assert torch.equal(torch.cat(box.asked), known.batch().inputs["image"])
    assert not set(known.ids) & {*leak.split.train.ids, *leak.heldout.ids}
    passes, rest = divmod(guess.gradients - 200, len(known))  # 200 of the inversion
    fits, more = divmod(passes - 5, 10)
    assert rest == more == 0
    assert fits >= 4  # two at each rate, and two rates or more
    assert fits % 2 == 0


def test_fewer_records_are_drawn_where_fewer_are_wanted(leak: Case) -> None:
    service = Service(leak)
    attack = replace(QUICK, records=40, extraction_epochs=1, change_epochs=1, iterations=2)
    assert attack.observe(service, rng=Rng(0)).queries == 80
    assert [len(torch.cat(box.asked)) for box in (service.before, service.after)] == [40, 40]


def test_the_view_of_its_threat_model_gives_the_same_and_no_weights(leak: Case, seen: tuple[Service, Guess]) -> None:
    view = View(QUICK.threat, leak)
    guess = QUICK.observe(view, rng=Rng(0))
    assert torch.equal(guess.tensors["recovered"], seen[1].tensors["recovered"])
    assert guess.queries == view.queries
    for model in (view.before, view.after):
        with pytest.raises(BeyondView, match="weights: got a black box"):
            model.weights()
    with pytest.raises(BeyondView, match="forget_set"):
        view.know("forget_set")


def test_the_surrogates_change_as_the_models_did_where_both_go_on(leak: Case, digits_task: Classification) -> None:
    """Against a surrogate that goes on alone, whose change is mostly that the first fit was not over; at any rate set."""
    true, answers = difference(leak.original.model, leak.subject.model), told(leak)
    attack = replace(QUICK, extraction_epochs=2, change_lr=0.4)
    before, after = attack.extract(digits_task, Linear(), leak.nonmembers, answers, rng=Rng(1), meter=Meter())
    assert along(difference(before, after), true) > 0.9
    alone = replace(attack, change_epochs=1, change_lr=1e-9)
    start, _ = alone.extract(digits_task, Linear(), leak.nonmembers, answers, rng=Rng(1), meter=Meter())
    assert along(difference(start, after), true) < 0.6
    assert not any(parameter.requires_grad for parameter in after.parameters())
    same, twin = alone.extract(
        digits_task, Linear(), leak.nonmembers, (answers[0], answers[0]), rng=Rng(1), meter=Meter()
    )
    with pytest.raises(BadInput, match="two models: got equal weights"):
        difference(same, twin)


def test_posteriors_are_fitted_by_divergence_too(leak: Case, digits_task: Classification) -> None:
    answers, losses = told(leak), []
    for epochs in (1, 15):
        attack = replace(QUICK, fits="posteriors", extraction_epochs=epochs, change_epochs=1)
        _, after = attack.extract(digits_task, Linear(), leak.nonmembers, answers, rng=Rng(1), meter=Meter())
        outputs = digits_task.outputs(after, leak.nonmembers.batch())
        losses.append(float(digits_task.divergence(outputs, answers[1]).mean()))
    assert losses[1] < 0.2 * losses[0]


def test_an_answer_of_zero_tells_no_ratio() -> None:
    logits = torch.tensor([[1.0, 3.0, -1.0], [0.0, 2.0, 5.0]])
    posterior = torch.softmax(logits, 1)
    torch.testing.assert_close(ratios(posterior), logits - logits.mean(1, keepdim=True))
    hidden = posterior.clone()
    hidden[0, 2] = 0
    torch.testing.assert_close(ratios(hidden)[0], torch.tensor([-1.0, 1.0, 0.0]))
    torch.testing.assert_close(centred(logits, hidden > 0), ratios(hidden))
    assert not ratios(torch.tensor([[1.0, 0.0, 0.0]])).any()


def test_a_service_that_shows_three_answers_is_still_fitted(leak: Case) -> None:
    def three(answer: Tensor) -> Tensor:
        return torch.where(answer >= answer.topk(3, 1).values[:, -1:], answer, 0.0)

    guess = QUICK.observe(Service(leak, change=three), rng=Rng(0))
    assert 0.5 < guess.info["explained"] <= 1
    assert torch.isfinite(guess.tensors["recovered"]).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"records": 1}, "records: got 1"),
        ({"extraction_epochs": 0}, "extraction_epochs: got 0"),
        ({"change_epochs": 0}, "change_epochs: got 0"),
        ({"change_lr": 0}, "change_lr: got 0"),
        ({"extraction_lr": -1}, "extraction_lr: got -1"),
        ({"extraction_batch": 0}, "extraction_batch: got 0"),
        ({"surrogate_width": 0}, "surrogate_width: got 0"),
        ({"fits": "logits"}, "fits: got 'logits', expected one of posteriors, ratios"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        make("attacks", "extracted_inversion", settings)


def test_what_cannot_be_extracted_is_refused(leak: Case) -> None:
    def observe(attack: ExtractedInversion, service: Service) -> None:
        attack.observe(service, rng=Rng(0))

    with pytest.raises(BadInput, match="two models: got equal answers, expected a difference"):
        observe(QUICK, Service(leak.of(leak.original, "original")))
    with pytest.raises(BadInput, match="records: got 1 that the user may know, expected two or more"):
        observe(QUICK, Service(leak, known=leak.nonmembers.take([0])))
    with pytest.raises(UnknownName, match=r"model: got 'linaer'.*did you mean 'linear'"):
        observe(replace(QUICK, surrogate="linaer"), Service(leak))
    with pytest.raises(BadInput, match="surrogate_width: got 3 for linear, expected none"):
        observe(replace(QUICK, surrogate_width=3), Service(leak))
    with pytest.raises(BadInput, match="surrogate: got answers that are NaN, expected finite"):
        observe(replace(QUICK, extraction_lr=1e38), Service(leak))
    assert replace(QUICK, surrogate="mlp", surrogate_width=7).architecture.width == 7  # type: ignore[attr-defined]
