"""Probes at the boundary of a class, against a softmax-linear model, whose boundaries are known, and on digits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.attack.black_box import SHAPE, UNIT, Asked
from torch import Tensor, nn

from palimpsest.attack.leakage._boundary import BoundaryProbes, boundary
from palimpsest.errors import BadInput
from palimpsest.rng import Rng


def edges(answer: Any, classes: list[int], seed: int = 0, **changes: Any) -> BoundaryProbes:
    options = {"domain": UNIT, "rng": Rng(seed), **changes}
    return boundary(answer, options.pop("shape", SHAPE), torch.tensor(classes, dtype=torch.long), **options)


def test_on_digits_the_boundary_is_where_labels_flip(digits_mlp: nn.Module) -> None:
    """Every probe is labelled as wanted, its pair within the tolerance is not, and so along the way between the ends."""
    made = edges(lambda x: digits_mlp(x).argmax(1), list(range(10)) * 3, shape=(1, 8, 8))
    assert made.accepted.float().mean() >= 0.9
    hit = made.accepted
    with torch.no_grad():
        inside, outside, deep, beyond = (
            digits_mlp(part[hit]).argmax(1) == made.classes[hit]
            for part in (made.inputs, made.outside, made.deep, made.beyond)
        )
    assert inside.all()
    assert deep.all()
    assert not outside.any()
    assert not beyond.any()
    assert (made.gap[hit] <= 1e-3).all()
    assert torch.allclose((made.inputs - made.outside)[hit].abs().flatten(1).amax(1).double(), made.gap[hit], atol=1e-6)


@pytest.mark.parametrize("steps", [0, 2])
def test_the_queries_of_a_boundary_are_counted_and_bounded(steps: int) -> None:
    model = Asked()
    made = edges(model.labels, [0, 1, 2, 0], steps=steps, at_once=11, directions=20, tolerance=0.01)
    assert made.queries == model.records
    assert model.largest == 11
    assert model.within
    if steps == 0:
        assert made.queries <= 256 + 4 * math.ceil(math.log2(100))
    same, other = (
        edges(model.labels, [0, 1, 2, 0], seed, steps=steps, directions=20, tolerance=0.01) for seed in (0, 1)
    )
    assert torch.equal(made.inputs, same.inputs)
    assert not torch.equal(made.inputs, other.inputs)


def test_steps_bring_a_probe_to_the_point_of_its_class_nearest_to_the_far_end() -> None:
    """Two classes and a plane between them: the nearest point is clamp(y − λ·normal) with the least λ that crosses the plane."""
    model = Asked(scale=1.0)
    model.weight[2], model.bias[2] = 0, -1e3
    plain, stepped = (edges(model.labels, [0, 1] * 5, steps=steps, directions=200) for steps in (0, 8))
    assert torch.equal(plain.beyond, stepped.beyond)
    normal, offset = model.weight[0] - model.weight[1], model.bias[0] - model.bias[1]
    end = plain.beyond.flatten(1).double()
    side = (end @ normal + offset).sign()[:, None]
    least, most = torch.zeros(10, 1), torch.full((10, 1), 10.0, dtype=torch.float64)
    for _ in range(50):
        middle = (least + most) / 2
        crossed = ((end - side * middle * normal).clamp(0, 1) @ normal + offset).sign()[:, None] != side
        least, most = torch.where(crossed, least, middle), torch.where(crossed, middle, most)
    best = ((end - side * most * normal).clamp(0, 1) - end).norm(dim=1)
    far, near = ((made.inputs - made.beyond).flatten(1).norm(dim=1).double() for made in (plain, stepped))
    assert (near >= best - 1e-6).all()
    assert (near <= 1.06 * best + 4e-3).all()  # four is the root of sixteen values, each within the tolerance
    assert (far > 2 * near).all()
    assert (stepped.gap <= 1e-3).all()
    with torch.no_grad():
        assert torch.equal(model.labels(stepped.inputs), stepped.classes)
        assert (model.labels(stepped.outside) != stepped.classes).all()


def test_no_step_takes_a_probe_farther_away() -> None:
    """With three directions a step the normals are poor, and many a step would."""
    runs = [edges(Asked().labels, [0, 1, 2] * 4, steps=steps, directions=3) for steps in range(5)]
    apart = torch.stack([(made.inputs - made.beyond).flatten(1).norm(dim=1) for made in runs])
    assert (apart.diff(dim=0) <= 0).all()
    assert (apart[-1] < apart[0]).all()


def test_a_class_without_a_start_or_without_a_neighbour_is_not_accepted() -> None:
    model = Asked()
    model.weight[1], model.bias[1] = 0, -1e3
    made = edges(model.labels, [0, 1, 2], draws=100)
    assert made.accepted.tolist() == [True, False, True]
    assert math.isinf(made.gap[1])
    assert made.queries >= 100
    alone = edges(lambda x: torch.ones(len(x), dtype=torch.long), [1, 1], draws=100)
    assert not alone.accepted.any()
    assert alone.queries == 100


def test_mosaics_are_drawn_until_a_rare_class_has_a_start_for_every_probe() -> None:
    made = edges(lambda x: (x.flatten(1).amin(1) > 0.97).long(), [1, 1, 1, 0], draws=4000)
    assert made.accepted.all()
    assert len({tuple(level.flatten().tolist()) for level in made.deep[:3]}) == 3
    assert made.queries > 256 + 4 * 10  # one round was not enough


def test_a_start_of_ones_own_reaches_what_mosaics_do_not() -> None:
    """A class that is answered only next to one checkerboard."""
    board = (torch.arange(16).view(SHAPE) + torch.arange(4).view(1, 4, 1)) % 2.0

    def labels(inputs: Tensor) -> Tensor:
        return ((inputs - board).abs().flatten(1).amax(1) < 0.2).long()

    assert edges(labels, [0, 1], draws=300).accepted.tolist() == [False, False]
    made = edges(labels, [0, 1, 1], draws=300, own=board[None])
    assert made.accepted.all()
    assert torch.equal(made.deep[1], board)
    assert torch.equal(made.deep[2], board)
    assert not torch.equal(made.inputs[1], made.inputs[2])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"draws": 0}, "draws"),
        ({"directions": 0}, "directions"),
        ({"steps": -1}, "steps"),
        ({"tolerance": 1e-9}, "tolerance"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"own": torch.zeros(2, 1, 5, 5)}, "own"),
        ({"shape": (2, 2, 2, 2)}, "shape"),
    ],
)
def test_bad_settings_of_a_boundary_are_named(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(BadInput, match=f"^{names}: got"):
        edges(Asked().labels, [0, 1], **changes)


def test_posteriors_are_no_labels() -> None:
    with pytest.raises(BadInput, match=r"^answer: got shape"):
        edges(Asked(), [0, 1])
