"""Feature inversion on a softened network that compares layers alike: what it looks at, and that it finds more in as many steps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from palimpsest.attack._gradients import along, orthonormal
from palimpsest.attack.leakage.feature_inversion import FeatureInversion, evened, softened
from palimpsest.errors import BadInput
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Split


@pytest.fixture(scope="module")
def victim(digits: Split, digits_task: Classification) -> nn.Module:
    torch.set_num_threads(1)
    recipe = Recipe(epochs=4, batch_size=32, lr=0.05)
    return (
        Plain()
        .fit(digits_task, digits.train.take(list(range(400))), recipe, ConvNet(width=4, places=2), rng=Rng(0))
        .model
    )


def test_in_as_many_steps_records_are_come_nearer(
    victim: nn.Module, digits: Split, digits_task: Classification
) -> None:
    """Exact gradients of unseen records, so that the search alone is to blame."""
    errors = {}
    for name, how in {"paper": {}, "softened": {"sharpness": 4.0, "compared": "layers"}}.items():
        attack = FeatureInversion(iterations=100, restarts=1, batching="loop", **how)  # type: ignore[arg-type]
        errors[name] = []
        for row in range(6):
            one = digits.test.take([row])
            truth = one.batch().inputs[digits_task.attacked_input]
            wanted = torch.autograd.grad(digits_task.loss(victim, one.batch()), list(victim.parameters()))
            found = attack.invert(victim, digits_task, wanted, one.targets, Rng(row)).tensors["recovered"]
            errors[name].append(float((found - truth).square().mean()))
    assert sum(errors["softened"]) < 0.8 * sum(errors["paper"])


def test_a_softened_copy_answers_nearly_alike_and_the_model_is_left_alone(
    victim: nn.Module, digits: Split, digits_task: Classification
) -> None:
    before = copy.deepcopy(victim.state_dict())
    images = digits.test.batch().inputs[digits_task.attacked_input]
    with torch.no_grad():
        plain = victim(images)
        far = [float((softened(victim, sharpness)(images) - plain).abs().max()) for sharpness in (4.0, 40.0, 4e4)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-2 * float(plain.abs().max())
    assert not any(isinstance(module, nn.Softplus) for module in victim.modules())
    assert all(torch.equal(before[name], value) for name, value in victim.state_dict().items())


def test_a_network_without_relu_cannot_be_softened(digits_task: Classification) -> None:
    with pytest.raises(
        BadInput, match=r"sharpness: got .* without nn.ReLU, expected a network of ReLU; set sharpness=0"
    ):
        softened(Linear().build(digits_task, Rng(0)), 4.0)


def test_evened_layers_have_length_one_and_vectors_none() -> None:
    parts = [torch.randn(3, 4) * 1e-9, torch.randn(3), torch.randn(2, 3, 3, 3) * 50, torch.zeros(5, 5)]
    lengths = [float((part.double() * factor).norm()) for part, factor in zip(parts, evened(parts), strict=True)]
    assert lengths == pytest.approx([1, 0, 1, 0])
    with pytest.raises(BadInput, match="compared: got weights that did not move"):
        evened([torch.zeros(3, 3), torch.ones(3)])


def test_directions_that_others_span_are_left_out() -> None:
    one, other = (
        [torch.randn(4, 3, generator=Rng(i).torch()), torch.randn(2, generator=Rng(9).torch())] for i in (0, 1)
    )
    mixed = [2 * a - 3 * b for a, b in zip(one, other, strict=True)]
    found = orthonormal([one, [torch.zeros_like(part) for part in one], other, mixed])
    assert len(found) == 2
    products = [[float(along([part[None] for part in a], b)) for a in found] for b in found]
    assert products == [pytest.approx([1, 0], abs=1e-12), pytest.approx([0, 1], abs=1e-12)]


def test_what_is_left_out_stays_left_out_where_layers_are_evened(
    victim: nn.Module, digits: Split, digits_task: Classification
) -> None:
    """A step in another direction that drowns the deletion disturbs who does not leave it out."""
    one = digits.test.take([1])
    truth = one.batch().inputs[digits_task.attacked_input]
    wanted = torch.autograd.grad(digits_task.loss(victim, one.batch()), list(victim.parameters()))
    other = [torch.randn(part.shape, generator=Rng(i).torch()) for i, part in enumerate(wanted)]
    size = max(float(part.abs().max()) for part in wanted)
    moved = [part + 10 * size * noise for part, noise in zip(wanted, other, strict=True)]
    attack = FeatureInversion(iterations=100, restarts=1, batching="loop", compared="layers", sharpness=4.0)
    errors = []
    for without in ([], orthonormal([other])):
        found = attack.invert(victim, digits_task, moved, one.targets, Rng(0), without=without)
        errors.append(float((found.tensors["recovered"] - truth).square().mean()))
    assert errors[1] < 0.6 * errors[0]
