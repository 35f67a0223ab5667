"""The guard of Eq. 6: what it adds to a method's loss, whom it guards, and that what it makes is an unlearner still."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from palimpsest.audit.runnable import runnable
from palimpsest.audit.stage import labels
from palimpsest.catalog import identity, make, members
from palimpsest.defend.adversarial_unlearning import AdversarialUnlearning, Attacked, Marked, MarkedBatch
from palimpsest.defend.base import Guarded
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Batch, Examples, Split
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.random_label import RandomLabel
from tests.audit.small import plan

TRAINING = sorted(name for name, cls in members("unlearners").items() if getattr(cls, "trains_on_forget", False))


@pytest.fixture(scope="module")
def trained(digits: Split, digits_task: Classification) -> tuple[Trained, Examples, Examples]:
    """A small model with the records it keeps and those it is to forget."""
    torch.set_num_threads(1)
    some = digits.train.take(np.arange(240))
    made = Plain().fit(digits_task, some, Recipe(epochs=4, batch_size=64), ConvNet(width=2), rng=Rng(0))
    gone = (some.targets == 0).numpy()
    return replace(made, validation=digits.validation), some.take(~gone), some.take(gone)


def test_marks_survive_subsets_devices_and_new_targets(trained: tuple[Trained, Examples, Examples]) -> None:
    forget = Marked.these(trained[2])
    for part in (forget, forget.take([0, 2]), forget.only(forget.ids[:3].tolist()), forget.to("cpu")):
        assert isinstance(part.batch(), MarkedBatch)
        assert isinstance(part.batch().with_targets(part.targets), MarkedBatch)
    assert not isinstance(trained[2].batch(), MarkedBatch)


def test_the_attacked_loss_is_added_with_the_same_targets(
    digits_task: Classification, trained: tuple[Trained, Examples, Examples]
) -> None:
    """Eq. 6 on a batch: L(x, y) + weight · L(δ, y), against a loss written out; batches to be kept stay as they are."""
    made, retain, forget = trained
    moved = 0.25 * torch.ones(len(forget), *digits_task.shape)
    fields = {name: getattr(digits_task, name) for name in Classification.__dataclass_fields__}
    task = Attacked(**fields, craft=lambda model, batch: moved, weight=0.5)
    batch = Marked.these(forget).batch().with_targets(torch.arange(len(forget)) % 10)
    logits, other = (
        made.model(batch.inputs["image"] if "image" in batch.inputs else next(iter(batch.inputs.values()))),
        made.model(moved),
    )
    expected = F.cross_entropy(logits, batch.targets) + 0.5 * F.cross_entropy(other, batch.targets)
    assert task.loss(made.model, batch).item() == pytest.approx(expected.item(), rel=1e-6)
    each = task.loss(made.model, batch, reduction="none")
    assert each.shape == (len(forget),)
    assert each.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    kept = retain.batch()
    assert torch.equal(task.loss(made.model, kept), digits_task.loss(made.model, kept))
    teacher = ConvNet(width=2).build(digits_task, Rng(5)).eval()
    plain = digits_task.distillation(made.model, teacher, batch, 2.0)
    attacked = digits_task.distillation(
        made.model, teacher, Batch({digits_task.attacked_input: moved}, batch.targets), 2.0
    )
    assert task.distillation(made.model, teacher, batch, 2.0).item() == pytest.approx(
        (plain + 0.5 * attacked).item(), rel=1e-5
    )


@pytest.mark.parametrize("name", TRAINING)
def test_every_method_that_trains_on_the_forget_set_is_guarded(
    name: str, trained: tuple[Trained, Examples, Examples]
) -> None:
    """Other weights than unguarded, finite, the input model untouched, ids less the forgotten, and a higher cost."""
    made, retain, forget = trained
    method = make("unlearners", name, {"epochs": 1})
    guarded = Guarded(method, AdversarialUnlearning(steps=2))
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    alone, found = (one.unlearn(made, retain, forget, rng=Rng(1)) for one in (method, guarded))
    again = guarded.unlearn(made, retain, forget, rng=Rng(1))
    assert all(torch.equal(value, before[key]) for key, value in made.model.state_dict().items())
    pairs = [(alone.model.state_dict()[k], v, again.model.state_dict()[k]) for k, v in found.model.state_dict().items()]
    assert any(not torch.equal(one, other) for one, other, _ in pairs)
    assert all(torch.equal(other, same) for _, other, same in pairs), "same seed, same weights"
    assert set(found.ids) == set(retain.ids)
    assert found.task is made.task, "the changed loss does not travel with the model"
    assert found.cost.samples >= alone.cost.samples + 3 * len(forget), "two steps and the attacked loss, counted"


def test_the_inner_attack_is_made_on_the_model_as_it_is_and_within_its_radius(
    trained: tuple[Trained, Examples, Examples],
) -> None:
    made, retain, forget = trained
    seen: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    class Watching(RandomLabel):
        def update(self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, **how: object) -> None:
            task = trained.task
            assert isinstance(task, Attacked)
            craft = task.craft

            def watched(now: nn.Module, batch: Batch) -> torch.Tensor:
                inputs = craft(now, batch)
                assert now is model
                assert now.training, "in the mode it was in"
                seen.append((batch.inputs[task.attacked_input], inputs, len(seen)))
                return inputs

            super().update(model, replace(trained, task=replace(task, craft=watched)), retain, forget, **how)  # type: ignore[arg-type]

    Guarded(Watching(epochs=2, batch_size=16), AdversarialUnlearning(epsilon=0.1, steps=3)).unlearn(
        made, retain, forget, rng=Rng(0)
    )
    assert len(seen) >= 2
    for clean, attacked, _ in seen:
        gap = (attacked - clean).abs().max().item()
        assert 0.01 < gap <= 0.1 + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1


def test_a_method_without_steps_on_the_forget_set_is_refused() -> None:
    for name in sorted(set(members("unlearners")) - set(TRAINING)):
        with pytest.raises(BadInput, match=f"adversarial_unlearning: got {name}, expected a method that takes steps"):
            Guarded(make("unlearners", name), AdversarialUnlearning())
    asked = plan(unlearners=(Finetune(),), defences=(AdversarialUnlearning(),))
    split = asked.data.load()
    with pytest.raises(BadInput, match="adversarial_unlearning: got finetune"):
        runnable(asked, split, Classification.of(split))


def test_a_guarded_method_stands_beside_the_plain_one() -> None:
    asked = plan(unlearners=(Finetune(), RandomLabel(), RandomLabel(lr=0.5)), defences=(AdversarialUnlearning(),))
    found = labels(asked)
    assert list(found) == [
        "finetune",
        "random_label",
        "random_label#2",
        "random_label+adversarial_unlearning",
        "random_label#2+adversarial_unlearning",
    ]
    one, other = (identity(found[f"random_label{n}+adversarial_unlearning"]) for n in ("", "#2"))
    assert one != other
    assert one["unlearner"]["lr"] == RandomLabel().lr
    assert one["guard"]["name"] == "adversarial_unlearning"
