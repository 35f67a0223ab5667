"""Feature inversion: known answers on one linear layer, the sign of the gradient, what rounding leaves, and its refusals."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.attack.leakage._matching import Descent, _Objective, match
from palimpsest.attack.leakage.feature_inversion import FeatureInversion, difference, labels_of
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.finetuned import Finetuned
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.files import load_into, read_weights, write_weights
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples, Split
from palimpsest.unlearn.single_gradient import SingleGradient

STEEP = Descent(iterations=300, restarts=2, lr=0.04, total_variation=0.0, weight_decay=0.0, batching="loop")


@pytest.fixture(scope="module")
def trained(digits: Split, digits_task: Classification, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A linear victim: pre-trained on half of the records, fine-tuned on others at a small rate, as the paper has it."""
    torch.set_num_threads(1)
    file = tmp_path_factory.mktemp("victim") / "pretrained.safetensors"
    public, private = digits.train.take(list(range(300, 600))), digits.train.take(list(range(300)))
    before = Plain().fit(digits_task, public, Recipe(epochs=8, batch_size=32, lr=0.05), Linear(), rng=Rng(0))
    write_weights(file, before.model)
    recipe = Recipe(epochs=1, batch_size=32, lr=1e-3, momentum=0.0, weight_decay=0.0, schedule="constant")
    return Finetuned(str(file)).fit(digits_task, private, recipe, Linear(), rng=Rng(0))


def pair(trained: Trained, digits: Split, ids: list[str], folder: Path) -> tuple[nn.Module, nn.Module]:
    """The model before and after single-gradient unlearning, each read from the file that it was stored in."""
    forget, records = digits.train.only(ids), digits.train.only(trained.ids.tolist())
    after = SingleGradient().unlearn(trained, records.without(ids), forget, rng=Rng(1))
    return stored(trained.model, folder), stored(after.model, folder)


def stored(model: nn.Module, folder: Path) -> nn.Module:
    """The model as a float32 file keeps it."""
    write_weights(folder / "weights.safetensors", model)
    fresh = copy.deepcopy(model)
    load_into(fresh, read_weights(str(folder / "weights.safetensors")), "weights")
    return fresh


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


def shares(examples: Examples) -> Tensor:
    return F.one_hot(examples.targets, 10).float()


def test_one_record_through_a_linear_layer_is_recovered_in_closed_form_and_by_the_search(
    trained: Trained, digits: Split, digits_task: Classification, tmp_path: Path
) -> None:
    """A row of the weight's gradient is the record times the same row of the bias's; two float32 files give it."""
    one = digits.train.only(trained.ids[:1].tolist())
    truth = one.batch().inputs[digits_task.attacked_input]
    stepped = copy.deepcopy(trained.model)
    slopes = torch.autograd.grad(digits_task.loss(stepped, one.batch()), list(stepped.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(stepped.parameters(), slopes, strict=True):
            parameter += 1e-3 * slope
    before, after = stored(trained.model, tmp_path), stored(stepped, tmp_path)
    wanted = difference(before, after)
    weight, bias = wanted
    row = int(bias.abs().argmax())
    closed = (weight[row] / bias[row]).view(1, *digits_task.shape) * 0.25 + 0.5
    assert psnr(closed, truth) > 60
    found = match(before, digits_task, wanted, shares(one), replace(STEEP, iterations=600), rng=Rng(0))
    assert psnr(found.inputs[found.best], truth) > 30
    assert found.evaluations == 1200
    assert float(found.inputs.min()) >= 0
    assert float(found.inputs.max()) <= 1


def test_with_the_papers_sign_nothing_is_recovered(
    trained: Trained, digits: Split, digits_task: Classification, tmp_path: Path
) -> None:
    """Deleting undoes a descent step: the gradient points along after − before. Eq. 2 prints before − after."""
    one = digits.train.only(trained.ids[:1].tolist())
    truth = one.batch().inputs[digits_task.attacked_input]
    before, after = pair(trained, digits, one.ids.tolist(), tmp_path)
    gradient = torch.autograd.grad(digits_task.loss(before, one.batch()), list(before.parameters()))
    ours = difference(before, after)
    along = sum(float((g.double() * w).sum()) for g, w in zip(gradient, ours, strict=True))
    lengths = [sum(float(part.double().square().sum()) for part in parts) ** 0.5 for parts in (gradient, ours)]
    assert along / (lengths[0] * lengths[1]) > 0.95  # not 1: the step was taken at the weights before fine-tuning
    turned = match(before, digits_task, difference(after, before), shares(one), STEEP, rng=Rng(0))
    right = match(before, digits_task, ours, shares(one), STEEP, rng=Rng(0))
    assert psnr(turned.inputs[turned.best], truth) < 15 < 25 < psnr(right.inputs[right.best], truth)


def test_the_loss_is_the_papers(digits: Split, digits_task: Classification) -> None:
    """1 − cosine + α·(mean |dx| + mean |dy|), written out in float64, of each restart; both ways to the gradients agree."""
    model = ConvNet(width=2).build(digits_task, Rng(3)).eval()
    some = digits.train.take([0, 1, 2, 3])
    mean, std = torch.tensor([0.5]).view(-1, 1, 1), torch.tensor([0.25]).view(-1, 1, 1)
    images = some.batch().inputs[digits_task.attacked_input]
    points = ((images - mean) / std).view(2, 2, *digits_task.shape)
    targets = shares(some).view(2, 2, 10)
    wanted = [torch.randn(p.shape, generator=Rng(5).child(i).torch()) for i, p in enumerate(model.parameters())]
    objective = _Objective(model, digits_task, wanted, mean, std, Descent(1, 2, 0.1, total_variation=0.3), False)
    precise = copy.deepcopy(model).double()
    expected, bare = [], []
    for part in (some.take([0, 1]), some.take([2, 3])):
        batch = part.batch()
        inputs = {digits_task.attacked_input: batch.inputs[digits_task.attacked_input].double()}
        loss = F.cross_entropy(precise(*inputs.values()), batch.targets)
        slopes = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(precise.parameters()))])
        direction = torch.cat([w.double().flatten() for w in wanted])
        length = float(direction.norm())
        image = next(iter(inputs.values()))
        rough = (image[..., 1:] - image[..., :-1]).abs().mean() + (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
        # the objective takes a direction of length 1
        bare.append(1 - float(slopes @ direction / slopes.norm()) / length)
        expected.append(bare[-1] + 0.3 * float(rough))
    scaled = [w / torch.cat([v.flatten() for v in wanted]).norm() for w in wanted]
    objective.wanted = scaled
    for way in (objective.looped, objective.vmapped):
        loss, (slope,) = objective.slopes(way, points, targets)
        assert loss[0].tolist() == pytest.approx(expected, abs=1e-5)
        assert loss[1].tolist() == pytest.approx(bare, abs=1e-5)
        assert slope.shape == points.shape
    one, other = (objective.slopes(way, points, targets)[1][0] for way in (objective.looped, objective.vmapped))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_label_of_one_record_is_read_off_the_gradient_and_those_of_several_too(
    digits: Split, digits_task: Classification
) -> None:
    for model in (Linear().build(digits_task, Rng(0)), Mlp(width=16, layers=2).build(digits_task, Rng(0))):
        for rows in ([0], [5], [9], [0, 1, 2]):
            some = digits.train.take(rows)
            gradient = torch.autograd.grad(digits_task.loss(model, some.batch()), list(model.parameters()))
            found = labels_of(model, gradient, len(rows), 10)
            assert found.tolist() == sorted(some.targets.tolist())


def test_labels_can_be_found_along_with_the_record(
    trained: Trained, digits: Split, digits_task: Classification, tmp_path: Path
) -> None:
    one = digits.train.only(trained.ids[:1].tolist())
    truth = one.batch().inputs[digits_task.attacked_input]
    before, after = pair(trained, digits, one.ids.tolist(), tmp_path)
    guess = FeatureInversion(
        iterations=600, restarts=2, total_variation=0.0, labels="optimised", batching="loop"
    ).invert(before, digits_task, difference(before, after), one.targets, Rng(0))
    assert guess.tensors["labels"].tolist() == one.targets.tolist()
    assert psnr(guess.tensors["recovered"], truth) > 20
    assert guess.gradients == 1200


def test_float16_files_turn_the_direction_of_a_small_step(trained: Trained, digits: Split, tmp_path: Path) -> None:
    """The step of one record is some 1e-3 of a weight and less, of which float16 rounds away a part."""
    one = digits.train.only(trained.ids[:1].tolist())
    before, after = pair(trained, digits, one.ids.tolist(), tmp_path)
    exact = torch.cat([part.flatten() for part in difference(before, after)])
    short = [copy.deepcopy(model).half().float() for model in (before, after)]
    rounded = torch.cat([part.flatten() for part in difference(short[0], short[1])])
    assert float(F.cosine_similarity(exact, rounded, 0)) < 0.99


@pytest.mark.parametrize("sign", ["hard", "soft", "none"])
@pytest.mark.parametrize("schedule", ["halved", "cosine"])
def test_every_way_of_stepping_descends(
    trained: Trained, digits: Split, digits_task: Classification, sign: str, schedule: str
) -> None:
    one = digits.train.take([0])
    gradient = torch.autograd.grad(digits_task.loss(trained.model, one.batch()), list(trained.model.parameters()))
    how = Descent(60, 1, 0.04, 0.0, sign=sign, schedule=schedule, warmup=5)  # type: ignore[arg-type]
    start = match(trained.model, digits_task, gradient, shares(one), Descent(1, 1, 0.04, 0.0), rng=Rng(0))
    found = match(trained.model, digits_task, gradient, shares(one), how, rng=Rng(0))
    assert float(found.loss) < 0.7 * float(start.loss)


def test_gradients_too_small_for_their_squares_are_compared_all_the_same(
    trained: Trained, digits: Split, digits_task: Classification
) -> None:
    """A model that is sure beyond doubt has a gradient whose squares are zero in float32; a cosine is never above 1."""
    sure = copy.deepcopy(trained.model)
    one = digits.train.take([0])
    with torch.no_grad():
        list(sure.parameters())[-1][int(one.targets[0])] += 60
    wanted = [torch.randn(part.shape, generator=Rng(0).torch()) for part in sure.parameters()]
    how = replace(STEEP, iterations=30, total_variation=0.0)
    found = match(sure, digits_task, wanted, shares(one), how, rng=Rng(0))
    assert bool(((found.loss >= 0) & (found.loss <= 2)).all())
    with torch.no_grad():
        list(sure.parameters())[-1][int(one.targets[0])] += 1e4
    found = match(sure, digits_task, wanted, shares(one), how, rng=Rng(0))
    assert found.loss.tolist() == [1.0] * how.restarts, "no gradient at all points nowhere"
    assert bool(found.inputs.isfinite().all())


def test_the_matching_loss_is_of_the_gradients_alone(
    trained: Trained, digits: Split, digits_task: Classification
) -> None:
    """It is what restarts are told apart by, however much smoothness weighs."""
    one = digits.train.take([0])
    gradient = torch.autograd.grad(digits_task.loss(trained.model, one.batch()), list(trained.model.parameters()))
    found = match(
        trained.model, digits_task, gradient, shares(one), Descent(5, 3, 0.04, total_variation=50.0), rng=Rng(0)
    )
    aim = torch.cat([part.flatten() for part in gradient])
    for inputs, loss in zip(found.inputs, found.loss.tolist(), strict=True):
        batch = replace(one.batch(), inputs={digits_task.attacked_input: inputs})
        back = torch.autograd.grad(digits_task.loss(trained.model, batch), list(trained.model.parameters()))
        cosine = F.cosine_similarity(torch.cat([part.flatten() for part in back]), aim, dim=0)
        assert loss == pytest.approx(1 - float(cosine), abs=1e-4)
    assert found.best == int(found.loss.argmin())


def test_labels_that_the_model_does_not_have_are_refused(trained: Trained, digits_task: Classification) -> None:
    attack, wanted = FeatureInversion(iterations=1), [torch.ones_like(p) for p in trained.model.parameters()]
    for label in (-1, 10):
        with pytest.raises(BadInput, match="labels of deleted records: got"):
            attack.invert(trained.model, digits_task, wanted, torch.tensor([label]), Rng(0))


def test_the_rate_halves_at_three_places() -> None:
    how = Descent(8, 1, 0.4, 0.0)
    assert [how.rate(step) for step in range(8)] == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05])
    assert Descent(4, 1, 0.4, 0.0, schedule="cosine").rate(2) == pytest.approx(0.2)
    assert Descent(8, 1, 0.4, 0.0, warmup=2).rate(0) == pytest.approx(0.2)


def test_the_norm_prior_is_least_where_statistics_are_those_kept(digits: Split, digits_task: Classification) -> None:
    """Of the statistics that batch norm has just seen of a batch, that batch is nearer than another."""
    model = ConvNet(width=2).build(digits_task, Rng(3))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    batch = digits.train.take(list(range(40))).batch().inputs[digits_task.attacked_input]
    model.train()(batch)
    model.eval()
    mean, std = torch.tensor([0.5]).view(-1, 1, 1), torch.tensor([0.25]).view(-1, 1, 1)
    how = Descent(1, 1, 0.1, 0.0, norm_prior=1.0)
    wanted = [torch.ones_like(parameter) for parameter in model.parameters()]
    objective = _Objective(model, digits_task, wanted, mean, std, how, False)
    same, other = ((x[None] - mean) / std for x in (batch, torch.rand(batch.shape, generator=Rng(1).torch())))
    with torch.no_grad():
        assert float(objective._strange(same)) < 0.2 * float(objective._strange(other))


def test_models_that_cannot_be_compared_are_refused(digits_task: Classification) -> None:
    one: Model = Mlp(width=8, layers=2)
    before = one.build(digits_task, Rng(0))
    with pytest.raises(BadInput, match="two models: got equal weights, expected a difference: nothing was unlearned"):
        difference(before, copy.deepcopy(before))
    with pytest.raises(BadInput, match=r"two models: got network.* of shape .* expected one architecture"):
        difference(before, Mlp(width=9, layers=2).build(digits_task, Rng(0)))
    with pytest.raises(BadInput, match="labels: got no layer with one row a class"):
        labels_of(nn.Linear(4, 3), [torch.ones(3, 4), torch.ones(3)], 1, 10)
    with pytest.raises(BadInput, match="gradient to match: got zero everywhere"):
        match(
            before,
            digits_task,
            [torch.zeros_like(p) for p in before.parameters()],
            torch.ones(1, 10),
            STEEP,
            rng=Rng(0),
        )
