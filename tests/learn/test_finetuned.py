"""Training from given weights: what is in the file decides, not its name; what does not fit is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from palimpsest.audit.workshop import Workshop
from palimpsest.catalog import identity, make
from palimpsest.data.digits import Digits
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.finetuned import Finetuned
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.models.files import read_weights, write_weights
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import Classification, predict
from palimpsest.types import Split
from palimpsest.unlearn.retrain import Retrain

FACTORY = ConvNet(width=2)


@pytest.fixture
def given(digits_task: Classification, tmp_path: Path) -> Path:
    path = tmp_path / "given.safetensors"
    model = FACTORY.build(digits_task, Rng(7))
    next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)).running_mean.fill_(0.3)  # type: ignore[union-attr, operator]
    write_weights(path, model)
    return path


def fit(path: Path, digits: Split, task: Classification, epochs: int, seed: int = 0) -> Trained:
    few = digits.train.take(list(range(60)))
    return Finetuned(str(path)).fit(task, few, Recipe(epochs=epochs, batch_size=32), FACTORY, rng=Rng(seed))


def test_it_starts_from_the_given_weights_and_keeps_them(
    given: Path, digits: Split, digits_task: Classification
) -> None:
    start = fit(given, digits, digits_task, epochs=0)
    source = FACTORY.build(digits_task, Rng(7)).state_dict()
    found = start.model.state_dict()
    assert torch.equal(found["network.0.0.weight"], source["network.0.0.weight"])
    assert found["network.0.1.running_mean"].tolist() == pytest.approx([0.3, 0.3])
    assert all(torch.equal(value, found[name]) for name, value in start.initial().items())
    trained = fit(given, digits, digits_task, epochs=1)
    assert all(torch.equal(value, found[name]) for name, value in trained.initial().items())
    assert not torch.equal(trained.model.state_dict()["network.0.0.weight"], found["network.0.0.weight"])


def test_it_learns_on_rather_than_anew(tmp_path: Path, digits: Split, digits_task: Classification) -> None:
    recipe = Recipe(epochs=2, batch_size=64, lr=0.1)
    before = Plain().fit(digits_task, digits.train, recipe, Mlp(width=32, layers=2), rng=Rng(0))
    path = tmp_path / "before.pt"
    torch.save(before.model.state_dict(), path)
    few = digits.train.take(list(range(30)))
    after = Finetuned(str(path)).fit(digits_task, few, recipe, Mlp(width=32, layers=2), rng=Rng(1))
    anew = Plain().fit(digits_task, few, recipe, Mlp(width=32, layers=2), rng=Rng(1))

    def accuracy(trained: Trained) -> float:
        answers = predict(digits_task, trained.model, digits.test).argmax(1)
        return (answers == digits.test.targets).double().mean().item()

    assert accuracy(after) > 0.8 > 0.6 > accuracy(anew)


def test_retraining_starts_from_the_same_file(given: Path, digits: Split, digits_task: Classification) -> None:
    trained = fit(given, digits, digits_task, epochs=1)
    forget = digits.train.only(trained.ids[:10])
    retain = digits.train.only(trained.ids[10:])
    retrained = Retrain().unlearn(trained, retain, forget, rng=Rng(3))
    expected = trained.learner.fit(digits_task, retain, trained.recipe, FACTORY, rng=Rng(3))  # type: ignore[union-attr, arg-type]
    answers = [predict(digits_task, model, digits.test) for model in (retrained.model, expected.model)]
    torch.testing.assert_close(*answers)


def test_the_artifact_key_follows_the_contents(given: Path, tmp_path: Path, digits_task: Classification) -> None:
    first = identity(Finetuned(str(given)))
    assert first["name"] == "finetuned"
    shutil.copy(given, tmp_path / "moved.safetensors")
    state = FACTORY.build(digits_task, Rng(7))
    assert identity(Finetuned(str(tmp_path / "moved.safetensors"))) == first
    assert identity(Finetuned(str(given))) == first
    write_weights(given, state)  # the same name, other contents
    assert identity(Finetuned(str(given))) != first


def test_weights_that_do_not_fit_are_refused(given: Path, digits: Split, digits_task: Classification) -> None:
    few = digits.train.take(list(range(60)))
    three = Classification(3, digits_task.shape, (0.5,), (0.25,), digits_task.domain, "image")
    with pytest.raises(BadInput, match=r"shapes network\.10\.weight \(10, 8\) for \(3, 8\).*number of classes"):
        Finetuned(str(given)).start(FACTORY, three, Rng(0))
    with pytest.raises(BadInput, match=r"given\.safetensors: got shapes .*check the model's settings"):
        Finetuned(str(given)).fit(digits_task, few, Recipe(epochs=1), ConvNet(width=3), rng=Rng(0))
    with pytest.raises(BadInput, match=r"got missing network\.1\.0\.bias, .*unexpected network\.0"):
        Finetuned(str(given)).start(Mlp(), digits_task, Rng(0))


def test_weights_are_required_and_must_be_there(digits_task: Classification) -> None:
    with pytest.raises(BadInput, match=r"finetuned: got neither weights nor public records.*--set data\.public=0\.8"):
        make("learners", "finetuned").start(FACTORY, digits_task, Rng(0))
    missing = make("learners", "finetuned", {"weights": "/nowhere/w.pt"})
    with pytest.raises(BadInput, match=r"/nowhere/w\.pt: got No such file"):
        missing.start(FACTORY, digits_task, Rng(0))
    with pytest.raises(BadInput, match=r"/nowhere/w\.pt: got No such file"):
        identity(missing)


def test_public_records_teach_what_original_and_controls_start_from(tmp_path: Path) -> None:
    """The same weights for all models of a seed; public records have a part in them and are never forgotten."""
    split = Digits(limit=300, public=0.7).load()
    assert split.public is not None
    shop = Workshop(Store(tmp_path), Classification.of(split), split.fingerprint, public=split.public)
    learner = Finetuned(pretraining_epochs=2, pretraining_lr=0.05)
    rest = split.train.take(list(range(10, len(split.train))))
    recipe = Recipe(epochs=1, batch_size=32, lr=0.01)
    original = shop.fit(learner, recipe, FACTORY, split.train, Rng(3).child("original"))
    control = shop.fit(learner, recipe, FACTORY, rest, Rng(3).child("control", 0, 0))
    other = shop.fit(learner, recipe, FACTORY, rest, Rng(4).child("control", 0, 0))
    begun = [made.trained.initial()["network.0.0.weight"] for made in (original, control, other)]
    assert torch.equal(begun[0], begun[1])
    assert not torch.equal(begun[0], begun[2])
    alone = Plain().fit(
        shop.task, split.public, learner.pretraining or recipe, FACTORY, rng=Rng(3).child("pretraining")
    )
    assert torch.equal(begun[0], alone.model.state_dict()["network.0.0.weight"])
    assert set(original.holds.tolist()) == {*split.train.ids.tolist(), *split.public.ids.tolist()}
    assert original.ids.tolist() == split.train.ids.tolist()
    assert original.cost.samples == len(split.train)  # fine-tuning alone
    retrained = Retrain().unlearn(original.trained, rest, split.train.take(list(range(10))), rng=Rng(5))
    assert torch.equal(retrained.initial()["network.0.0.weight"], begun[0])


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_norm_keeps_its_statistics_where_it_is_asked_to(
    frozen: bool, given: Path, digits: Split, digits_task: Classification
) -> None:
    """And is in evaluation mode while the weights learn."""
    before = read_weights(str(given))
    learner = Finetuned(str(given), frozen_norms=frozen)
    some, recipe = digits.train.take(list(range(128))), Recipe(epochs=1, batch_size=64)
    model = learner.fit(digits_task, some, recipe, FACTORY, rng=Rng(0)).model
    after = model.state_dict()
    moved = {name: not torch.equal(value, after[name]) for name, value in before.items()}
    assert any(moved[name] for name, _ in model.named_parameters())
    assert any(moved[name] for name, _ in model.named_buffers()) is not frozen
