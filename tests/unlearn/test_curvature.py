"""The solves against dense linear algebra, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter
from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.unlearn._per_record import Gradients
from palimpsest.unlearn.curvature import Curvature, conjugate_gradients, published_woodfisher, woodbury


def matrix(gradients: Gradients) -> Tensor:
    return torch.stack([gradients.row(index) for index in range(len(gradients))])


def dense(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    wide = gradients.double()
    system = wide.T @ wide / len(wide) + damping * torch.eye(wide.shape[1], dtype=torch.float64)
    return torch.linalg.solve(system, vector.double())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 60), st.floats(1e-3, 10.0), st.integers(0, 99))
def test_woodbury_is_the_dense_solution(count: int, size: int, damping: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(count, size, generator=generator)
    vector = torch.randn(size, generator=generator)
    expected = dense(gradients, vector, damping)
    assert float((woodbury(Gradients.of(gradients), vector, damping) - expected).norm() / expected.norm()) < 1e-4


def test_woodbury_refuses_a_damping_that_its_dtype_cannot_resolve() -> None:
    gradients = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)) * 1e4
    vector = gradients.sum(0)
    with pytest.raises(BadInput, match="raise damping"):
        woodbury(Gradients.of(gradients), vector, 1e-9)
    found = woodbury(Gradients.of(gradients.double()), vector.double(), 1e-2)
    expected = dense(gradients, vector, 1e-2)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_rank_one_recursion_done_right_gives_the_same() -> None:
    """Sherman–Morrison, one gradient at a time, each against the inverse of all before it."""
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(12, 9, generator=generator, dtype=torch.float64)
    vector = torch.randn(9, generator=generator, dtype=torch.float64)
    inverse = torch.eye(9, dtype=torch.float64) / 0.3
    for gradient in gradients:
        image = inverse @ gradient
        inverse = inverse - torch.outer(image, image) / (12 + gradient @ image)
    torch.testing.assert_close(woodbury(Gradients.of(gradients), vector, 0.3), inverse @ vector)


def test_woodfisher_that_only_rescales_its_first_vector() -> None:
    """The published recursion stays on the line v + a·g₀ whatever the gradients are; the solve does not."""
    generator = torch.Generator().manual_seed(2)
    gradients = torch.randn(40, 15, generator=generator, dtype=torch.float64)
    vector = torch.randn(15, generator=generator, dtype=torch.float64)

    def off_line(found: Tensor) -> float:
        change, first = found - vector, gradients[0]
        return float((change - (change @ first) / (first @ first) * first).norm() / change.norm())

    published = published_woodfisher((Gradients.of(part) for part in gradients.split(7)), vector, 38)
    assert off_line(published) < 1e-9
    assert off_line(woodbury(Gradients.of(gradients), vector, 1.0)) > 0.1


def test_conjugate_gradients_solve_and_say_when_they_cannot() -> None:
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(10, 10, generator=generator, dtype=torch.float64)
    system, vector = root @ root.T + torch.eye(10, dtype=torch.float64), torch.ones(10, dtype=torch.float64)
    found = conjugate_gradients(lambda x: system @ x, vector, tolerance=1e-12, iterations=50)
    torch.testing.assert_close(found, torch.linalg.solve(system, vector))
    with pytest.raises(BadInput, match="after 2 iterations"):
        conjugate_gradients(lambda x: system @ x, vector, tolerance=1e-12, iterations=2)
    with pytest.raises(BadInput, match="ggn"):
        conjugate_gradients(lambda x: -x, vector, tolerance=1e-12, iterations=2)
    nothing = conjugate_gradients(lambda x: x, torch.zeros(3), tolerance=1e-6, iterations=1)
    assert not nothing.any()


@pytest.fixture
def network(digits_task) -> nn.Module:
    """A small network with batch norm, its running statistics moved off their start."""
    model = ConvNet(width=2).build(digits_task, Rng(0))
    model(torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    return model.eval()


def test_products_equal_their_definitions_on_batch_norm(network, digits_task, digits_few) -> None:
    network.double()
    records, curvature = digits_few.take(list(range(0, 200, 10))), Curvature(network, digits_task, Meter())
    vector = torch.randn(curvature.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = matrix(curvature.gradients(records))
    fisher = gradients.T @ (gradients @ vector) / len(records)
    torch.testing.assert_close(curvature.product("fisher", records, vector), fisher)

    def shifted(step: float) -> Tensor:
        with torch.no_grad():
            for parameter, part in zip(network.parameters(), curvature.parts(vector), strict=True):
                parameter.add_(step * part)
        slope = curvature.gradient_sum(records) / len(records)
        with torch.no_grad():
            for parameter, part in zip(network.parameters(), curvature.parts(vector), strict=True):
                parameter.sub_(step * part)
        return slope

    difference = (shifted(1e-7) - shifted(-1e-7)) / 2e-7
    exact = curvature.product("exact", records, vector)
    assert float((exact - difference).norm() / exact.norm()) < 1e-5


def test_weights_that_the_loss_does_not_use_get_zeros(digits_task, digits_few) -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare, self.layer = nn.Linear(2, 2), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1))

    curvature = Curvature(Spare().eval(), digits_task, Meter())
    for kind in ("exact", "ggn", "fisher"):
        found = curvature.product(kind, digits_few, torch.ones(curvature.size))
        assert not found[:6].any()
        assert found[6:].any()


def test_costs_are_counted(network, digits_task, digits_few) -> None:
    meter = Meter()
    curvature = Curvature(network, digits_task, meter)
    curvature.gradient_sum(digits_few)
    assert (meter.samples, meter.gradient_evaluations) == (200, 1)
    curvature.gradients(digits_few)
    assert (meter.samples, meter.gradient_evaluations) == (400, 5)
    curvature.product("ggn", digits_few, torch.ones(curvature.size))
    assert (meter.samples, meter.gradient_evaluations) == (800, 7)
