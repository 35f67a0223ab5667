"""Mistakes that public implementations of these methods really make: each test is named after one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Batch, Examples
from palimpsest.unlearn.boundary_shrink import BoundaryShrink
from palimpsest.unlearn.features_and_labels import FeaturesAndLabels
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.fisher import Fisher
from palimpsest.unlearn.gradient_ascent import GradientAscent
from palimpsest.unlearn.influence import Influence
from palimpsest.unlearn.l1_sparse import L1Sparse
from palimpsest.unlearn.negative_gradient import NegativeGradient
from palimpsest.unlearn.noisy_gradient_descent import NoisyGradientDescent
from palimpsest.unlearn.random_label import RandomLabel
from palimpsest.unlearn.salun import SalUn, saliency_masks
from palimpsest.unlearn.scrub import Scrub
from palimpsest.unlearn.single_gradient import SingleGradient
from palimpsest.unlearn.ssd import SelectiveSynapticDampening

STEPPING = [
    GradientAscent,
    Finetune,
    RandomLabel,
    L1Sparse,
    SalUn,
    NegativeGradient,
    NoisyGradientDescent,
    Scrub,
    BoundaryShrink,
]
IN_PLACE = [Influence, SingleGradient, SelectiveSynapticDampening, Fisher, FeaturesAndLabels]
"""Methods without passes, which change the weights where they are."""


@pytest.fixture
def trained(digits_task, digits_few) -> Trained:
    return Plain().fit(digits_task, digits_few, Recipe(epochs=4, batch_size=64), ConvNet(width=2), rng=Rng(0))


@pytest.fixture
def forget(digits_few) -> Examples:
    return digits_few.take(list(range(20)))


@pytest.fixture
def retain(digits_few) -> Examples:
    return digits_few.take(list(range(20, 200)))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@dataclasses.dataclass(frozen=True)
class Listening(Classification):
    """Writes down every batch of the loss, and every draw of random labels."""

    heard: list = dataclasses.field(default_factory=list)

    def loss(self, model: nn.Module, batch: Batch, *, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
        self.heard.append(("loss", batch, model.training))
        return super().loss(model, batch, reduction=reduction, label_smoothing=label_smoothing)

    def randomise(self, targets: Tensor, rng: torch.Generator) -> Tensor:
        drawn = super().randomise(targets, rng)
        self.heard.append(("labels", drawn, True))
        return drawn


def listening(trained: Trained) -> Trained:
    own = {field.name: getattr(trained.task, field.name) for field in dataclasses.fields(Classification)}
    return dataclasses.replace(trained, task=Listening(**own))


@pytest.mark.parametrize("method", STEPPING)
def test_the_optimizer_holds_the_teachers_parameters(method, trained, retain, forget) -> None:
    """The model that comes out must be the one that was stepped, and every parameter with a gradient must move."""
    result = method(epochs=1, **({"share": 1.0} if method is SalUn else {})).unlearn(
        trained, retain, forget, rng=Rng(1)
    )
    before = dict(trained.model.named_parameters())
    stuck = [name for name, value in result.model.named_parameters() if torch.equal(value, before[name])]
    assert not stuck


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_weight_decay_or_momentum_moves_masked_weights(share, trained, retain, forget) -> None:
    """Frozen weights stay bit-identical under strong decay and momentum over many steps."""
    strong = SalUn(share=share, lr=0.05, epochs=3, batch_size=32, momentum=0.99, weight_decay=0.1)
    result = strong.unlearn(trained, retain, forget, rng=Rng(1))
    old, new = flat(trained.model), flat(result.model)
    masks = saliency_masks(trained.model, trained.task, forget, share, batch_size=256, meter=Meter())
    free = torch.cat([mask.flatten() for mask in masks])
    assert int(free.sum()) == round(share * len(old))
    assert torch.equal(old[~free], new[~free])
    assert not (old[free] == new[free]).all() or share == 0


def test_a_mask_taken_layer_by_layer(trained, forget) -> None:
    """The mask ranks all weights together, at the model as it was, in evaluation mode."""
    was = trained.model.training
    masks = saliency_masks(trained.model, trained.task, forget, 0.3, batch_size=7, meter=Meter())
    trained.model.zero_grad()
    trained.task.loss(trained.model, forget.batch(), reduction="sum").backward()
    saliency = torch.cat([parameter.grad.abs().flatten() for parameter in trained.model.parameters()])
    trained.model.zero_grad()
    free = torch.cat([mask.flatten() for mask in masks])
    assert float(saliency[free].min()) >= float(saliency[~free].max()) * (1 - 1e-3)
    shares = [float(mask.float().mean()) for mask in masks]
    assert max(shares) - min(shares) > 0.2, "a layer-wise mask would keep the same share everywhere"
    assert was is False


def test_random_labels_drawn_once_or_never_the_true_one(trained, retain, forget) -> None:
    heard = listening(trained)
    RandomLabel(epochs=12).unlearn(heard, retain, forget, rng=Rng(1))
    drawn = torch.stack([labels for what, labels, _ in heard.task.heard if what == "labels"])
    assert drawn.shape == (12, 20)
    assert len({tuple(row) for row in drawn.tolist()}) == 12, "the same labels in two epochs"
    share = float((drawn == 0).float().mean())  # the true label of all twenty
    assert 0.03 < share < 0.2
    assert set(drawn.flatten().tolist()) == set(range(10))


@pytest.mark.parametrize("method", [RandomLabel, SalUn])
def test_one_mixed_pass_in_place_of_two(method, trained, retain, forget) -> None:
    """Each epoch is a full pass over the forget set, then a full pass over the retain set, with the retain set's own labels."""
    heard = listening(trained)
    method(epochs=2, batch_size=50).unlearn(heard, retain, forget, rng=Rng(1))
    batches = [batch for what, batch, training in heard.task.heard if what == "loss" and training]
    assert [len(batch) for batch in batches] == [20, 50, 50, 50, 30] * 2
    kept = torch.cat([batch.targets for batch in batches[1:5]])
    assert torch.equal(kept.sort().values, retain.targets.sort().values)


def test_the_penalty_stays_where_it_should_fall() -> None:
    falling = L1Sparse(alpha=0.4, epochs=4)
    assert [round(falling.penalty(epoch), 9) for epoch in range(4)] == [0.4, 0.3, 0.2, 0.1]
    ending = L1Sparse(alpha=0.4, epochs=4, epochs_without_l1=2)
    assert [round(ending.penalty(epoch), 9) for epoch in range(4)] == [0.4, 0.2, 0.0, 0.0]
    assert [L1Sparse(alpha=0.4, epochs=2, epochs_without_l1=2).penalty(epoch) for epoch in range(2)] == [0.0, 0.0]
    with pytest.raises(BadInput, match="at most 2"):
        L1Sparse(epochs=2, epochs_without_l1=3)


def test_l1_makes_weights_small(trained, retain, forget) -> None:
    with_l1, without = (
        flat(L1Sparse(alpha=alpha).unlearn(trained, retain, forget, rng=Rng(1)).model).abs().sum()
        for alpha in (0.1, 0.0)
    )
    assert float(with_l1) < 0.8 * float(without)


def test_gradient_ascent_that_descends(trained, retain, forget) -> None:
    def loss(model: nn.Module) -> float:
        return float(trained.task.loss(model, forget.batch()).detach())

    result = GradientAscent(lr=1e-2).unlearn(trained, retain, forget, rng=Rng(1))
    assert loss(result.model) > loss(trained.model) + 0.1


def test_forget_and_retain_records_mixed_up(trained, retain, forget) -> None:
    """Ascent reads the forget set only; fine-tuning reads the retain set only."""
    for method in (Finetune, L1Sparse):
        one = method(epochs=1).unlearn(trained, retain, forget, rng=Rng(1))
        two = method(epochs=1).unlearn(trained, retain, forget.take([0, 1]), rng=Rng(1))
        assert torch.equal(flat(one.model), flat(two.model))
    one = GradientAscent().unlearn(trained, retain, forget, rng=Rng(1))
    two = GradientAscent().unlearn(trained, retain.take([0, 1]), forget, rng=Rng(1))
    assert torch.equal(flat(one.model), flat(two.model))
    three = GradientAscent().unlearn(trained, retain, forget.take([0, 1]), rng=Rng(1))
    assert not torch.equal(flat(one.model), flat(three.model))


def test_forget_indices_derived_again_with_another_seed(trained, retain, forget, digits) -> None:
    """A forget set that holds records which were never trained on is refused, one such record being enough."""
    other = digits.train.without(trained.ids).take([0])
    mixed = digits.train.only([*forget.ids, *other.ids])
    with pytest.raises(BadInput, match=str(other.ids[0])):
        Finetune().unlearn(trained, retain, mixed, rng=Rng(1))


def test_influence_with_the_sign_turned(trained, retain, forget) -> None:
    """The step must raise the loss on the forget set and leave the retain set nearly alone."""
    result = Influence(alpha=1.0, damping=0.1).unlearn(trained, retain, forget, rng=Rng(1))

    def rise(records: Examples) -> float:
        after, before = (trained.task.loss(model, records.batch()) for model in (result.model, trained.model))
        return float((after - before).detach())

    assert rise(forget) > 0.01
    assert rise(forget) > rise(retain)


def test_influence_at_batch_statistics(trained, retain, forget) -> None:
    """The solve is at the model in evaluation mode, in whatever mode the model comes."""
    wanted = Influence().unlearn(trained, retain, forget, rng=Rng(1))
    trained.model.train()
    found = Influence().unlearn(trained, retain, forget, rng=Rng(1))
    assert torch.equal(flat(found.model), flat(wanted.model))
    assert trained.model.training, "the model that goes in is put back as it was"
    trained.model.eval()


def test_batch_norm_statistics_moved_by_a_method_that_should_not(trained, retain, forget) -> None:
    before = dict(trained.model.named_buffers())
    for method in (Influence(), SingleGradient()):
        result = method.unlearn(trained, retain, forget, rng=Rng(1))
        assert all(torch.equal(value, before[name]) for name, value in result.model.named_buffers())


@pytest.mark.parametrize("method", [*STEPPING, *IN_PLACE])
def test_a_single_record_can_be_forgotten_by_a_model_with_batch_norm(method, digits_task, digits_few) -> None:
    """Its last batch norm sees one value per channel and record: batch statistics of one record do not exist."""

    class Tail(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    model = Tail().eval()
    kept = {f"initial/{name}": value for name, value in Tail().state_dict().items()}
    trained = Trained(model, digits_task, digits_few.ids, recipe=Recipe(), kept=kept)
    one = digits_few.take([3])
    unlearner = method(alpha=1.0) if method is SelectiveSynapticDampening else method()
    result = unlearner.unlearn(trained, digits_few.without(one.ids), one, rng=Rng(1))
    assert not torch.equal(flat(result.model), flat(model))
    if method is GradientAscent:
        assert torch.equal(model.body[2].running_mean, result.model.body[2].running_mean)


@pytest.mark.parametrize("method", STEPPING)
def test_dropout_makes_two_runs_differ(method, digits_task, digits_few) -> None:
    """Dropout draws from torch's global generator; the same stream must still give the same weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10)).eval()
    trained = Trained(model, digits_task, digits_few.ids)
    forget, retain = digits_few.take(list(range(20))), digits_few.take(list(range(20, 200)))
    runs = [method(epochs=1).unlearn(trained, retain, forget, rng=Rng(1)) for _ in range(2)]
    assert torch.equal(flat(runs[0].model), flat(runs[1].model))
    other = method(epochs=1).unlearn(trained, retain, forget, rng=Rng(2))
    assert not torch.equal(flat(runs[0].model), flat(other.model))


def test_weights_without_history(digits_task, digits_few, retain, forget) -> None:
    """Imported weights: methods that need what was not kept say so."""
    from palimpsest.unlearn.retrain import Retrain

    bare = Trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits_task, digits_few.ids)
    with pytest.raises(BadInput, match="recipe"):
        Retrain().unlearn(bare, retain, forget, rng=Rng(1))
    with pytest.raises(BadInput, match="set lr"):
        SingleGradient().unlearn(bare, retain, forget, rng=Rng(1))
    with pytest.raises(BadInput, match="initial weights"):
        SingleGradient(lr=0.1, epochs=1, batch_size=8).unlearn(bare, retain, forget, rng=Rng(1))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (GradientAscent, {"lr": -1.0}),
        (GradientAscent, {"clip": float("nan")}),
        (Finetune, {"batch_size": 0}),
        (RandomLabel, {"epochs": -1}),
        (SalUn, {"share": 1.5}),
        (SingleGradient, {"lr": float("inf")}),
        (Influence, {"damping": 0.0}),
        (Influence, {"samples": 0}),
        (Influence, {"solver": "published", "curvature": "exact"}),
    ],
)
def test_impossible_settings_are_refused(method, settings) -> None:
    with pytest.raises(BadInput, match="expected"):
        method(**settings)
