"""Classification against formulas worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest.data.breast_cancer import BreastCancer
from palimpsest.rng import Rng
from palimpsest.task import Classification, predict, seeded_targets
from palimpsest.types import Batch, Examples, Split


class Fixed(nn.Module):
    """Logits that are the input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(3, (3,), (0.0,), (1.0,), (torch.zeros(()), torch.ones(())), "x")


def batch(rows: list[list[float]], targets: list[int]) -> Batch:
    return Batch({"x": torch.tensor(rows)}, torch.tensor(targets))


def test_images_are_normalised_by_constants_not_by_records(digits: Split) -> None:
    task = Classification.of(digits)
    assert (task.mean, task.std) == ((0.5,), (0.25,))
    assert (task.shape, task.classes, task.attacked_input) == ((1, 8, 8), 10, "image")


def test_features_are_normalised_by_validation_records_only() -> None:
    split = BreastCancer().load()
    task = Classification.of(split)
    values = split.validation.batch().inputs["features"].numpy().astype(float)
    np.testing.assert_allclose(task.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(task.std, values.std(0, ddof=1), rtol=1e-12)
    assert Classification.of(replace(split, train=split.train.take([0, 1, 2]))) == task  # no training record takes part


def test_a_constant_feature_is_not_divided_by_zero() -> None:
    held = Examples.of({"x": torch.tensor([[1.0, 5.0], [3.0, 5.0]])}, torch.tensor([0, 1]), ["a", "b"])
    split = Split("s", "features", held, held, held, ("no", "yes"), "", (torch.zeros(2), torch.ones(2)))
    assert Classification.of(split).std == (math.sqrt(2), 1.0)


def test_loss_is_cross_entropy(task: Classification) -> None:
    rows = batch([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]], [1, 0])
    expected = torch.tensor([math.log(3), math.log(4 / 2)])
    torch.testing.assert_close(task.loss(Fixed(), rows, reduction="none"), expected)
    torch.testing.assert_close(task.loss(Fixed(), rows), expected.mean())
    torch.testing.assert_close(task.loss(Fixed(), rows, reduction="sum"), expected.sum())
    torch.testing.assert_close(task.loss_of(rows.inputs["x"], rows.targets), expected.mean())


def test_label_smoothing_spreads_its_share_over_all_classes(task: Classification) -> None:
    rows = batch([[2.0, 0.0, -1.0]], [0])
    log_p = torch.log_softmax(rows.inputs["x"][0], 0)
    weights = torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    torch.testing.assert_close(task.loss(Fixed(), rows, label_smoothing=0.1), -(weights * log_p).sum())


def test_divergence_is_the_kl_of_the_posterior_from_the_outputs(task: Classification) -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    torch.testing.assert_close(task.divergence(q.log() + 7.0, p), torch.tensor([expected]))
    assert task.divergence(p.log(), p).abs().item() < 1e-6


def test_random_targets_may_be_any_class_the_true_one_included(task: Classification) -> None:
    truth = torch.zeros(3000, dtype=torch.long)
    drawn = seeded_targets(task, truth, Rng(0))
    counts = torch.bincount(drawn, minlength=3)
    assert len(counts) == 3
    assert counts.min() > 900
    assert torch.equal(drawn, seeded_targets(task, truth, Rng(0)))
    assert not torch.equal(drawn, seeded_targets(task, truth, Rng(1)))


def test_error_and_posterior_carry_no_gradient(task: Classification) -> None:
    model = nn.Linear(3, 3)
    rows = batch([[1.0, 2.0, 3.0]], [2])
    posterior = task.posterior(model, rows)
    assert not posterior.requires_grad
    torch.testing.assert_close(posterior.sum(1), torch.ones(1))
    errors = task.error(Fixed(), batch([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], [2, 0]))
    assert errors.tolist() == [0.0, 1.0]


def test_outputs_of_models_with_several_inputs_and_of_those_that_answer_with_logits(task: Classification) -> None:
    class Answer(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=left - right)

    both = Batch({"right": torch.ones(1, 3), "left": torch.full((1, 3), 3.0)}, torch.tensor([0]))
    assert task.outputs(Answer(), both).tolist() == [[2.0, 2.0, 2.0]]


def test_predict_uses_evaluation_mode_and_puts_the_mode_back(task: Classification) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3))
    records = Examples.of({"x": torch.randn(7, 3)}, torch.zeros(7), [str(i) for i in range(7)])
    model.train()
    answers = predict(task, model, records, batch_size=3)
    assert model.training
    assert torch.equal(answers, predict(task, model, records, batch_size=3))
    torch.testing.assert_close(answers, predict(task, model, records, batch_size=100))

    broken = nn.Sequential(nn.Linear(4, 3)).train()
    with pytest.raises(RuntimeError):
        predict(task, broken, records)
    assert broken.training


def test_identity_is_json_and_changes_with_what_the_model_sees(task: Classification) -> None:
    first = json.dumps(task.identity())
    changes = {"classes": 4, "shape": (4,), "mean": (1.0,), "std": (2.0,)}
    others = {json.dumps(replace(task, **{name: value}).identity()) for name, value in changes.items()}
    assert len(others | {first}) == 5
