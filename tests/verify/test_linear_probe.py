"""The linear probe: sees through a suppressed head, sees nothing where features are gone, learns from none that it is judged on."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest.audit.controls import Shifted
from palimpsest.case import Case
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models._ensemble import Ensemble
from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import ForgetRequest, Split
from palimpsest.verify.linear_probe import LinearProbe, features


@pytest.fixture(scope="module")
def case(digits: Split) -> Case:
    torch.set_num_threads(1)
    task, train = Classification.of(digits), digits.train.take(np.arange(600))
    gone = np.sort(train.ids[(train.targets == 3).numpy()])
    made = Plain().fit(task, train, Recipe(epochs=6, batch_size=64), ConvNet(width=4), rng=Rng(0))
    return Case(replace(digits, train=train), (ForgetRequest(gone, "class=3"),), made, made, "original")


def recalls(case: Case, model: nn.Module, probe: LinearProbe = LinearProbe()) -> dict[str, float]:  # noqa: B008 - frozen
    subject = Trained(model, case.task, case.original.ids)
    return {m.name: m.value for m in probe.measure(probe.verify(case.of(subject, "unlearned")))}


def test_a_suppressed_head_hides_nothing_from_it(case: Case) -> None:
    """A bias of −30, or a head of zeros, makes forget accuracy 0; the features are what they were, and so is every number."""
    plain = recalls(case, case.original.model)
    shift = torch.zeros(10)
    shift[3] = -30.0
    assert recalls(case, Shifted(case.original.model, shift)) == plain
    headless = copy.deepcopy(case.original.model)
    for parameter in [m for m in headless.modules() if isinstance(m, nn.Linear)][-1].parameters():
        parameter.data.zero_()
    assert recalls(case, headless) == plain
    assert plain["linear_probe.forget_recall"] > 0.9
    assert plain["linear_probe.heldout_recall"] > 0.8


def test_features_that_are_gone_are_seen_to_be_gone(case: Case) -> None:
    """A body that gives every record the same features leaves a probe that names one class for all."""

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5, 10)

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.head(0 * image.flatten(1)[:, :5])
            return logits

    blind = recalls(case, Blind())
    assert blind["linear_probe.forget_recall"] in (0.0, 1.0)
    assert blind["linear_probe.auc"] == 0.5


def test_it_learns_from_test_records_that_it_is_not_judged_on(case: Case) -> None:
    probe = LinearProbe(shots=5)
    taught, unseen = probe._parts(case)
    scores = probe.verify(case)
    assert not set(taught.ids) & set(scores.ids)
    assert set(taught.ids) <= set(case.split.test.ids)
    assert np.bincount(taught.targets.numpy()).tolist() == [5] * 10
    assert set(unseen.targets.tolist()) == {3}
    assert set(scores.ids[scores["group"] == 0]) == set(case.forget.ids)


def test_features_are_what_the_last_linear_layer_takes(case: Case) -> None:
    inside = case.original.model
    linear = [m for m in inside.modules() if isinstance(m, nn.Linear)][-1]
    taken = features(inside, case.forget, batch_size=7)
    with torch.no_grad():
        again = linear(torch.from_numpy(taken).float())
        own = inside(case.forget.batch().inputs[case.task.attacked_input])
    assert taken.shape == (len(case.forget), linear.in_features)
    torch.testing.assert_close(again, own, rtol=1e-4, atol=1e-4)
    assert not linear._forward_pre_hooks


def test_an_ensembles_features_are_all_its_members(case: Case) -> None:
    one, two = case.original.model, ConvNet(width=4).build(case.task, Rng(9))
    ensemble = Ensemble([one, two, ConvNet(width=4).build(case.task, Rng(3))])
    ensemble.filled[2] = 0  # a shard without records, whose answer does not count
    both = features(ensemble, case.forget)
    np.testing.assert_array_equal(both, np.hstack([features(one, case.forget), features(two, case.forget)]))


def test_what_has_no_linear_layer_is_refused(case: Case) -> None:
    with pytest.raises(BadInput, match="linear_probe: got a model without a linear layer"):
        features(nn.Conv2d(1, 1, 3), case.forget)
