"""The purifier: what it learns and from whom, that gradients pass through it, and what it costs and gives in an audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.residual.uma import Uma
from palimpsest.audit.workshop import Workshop
from palimpsest.defend.purification import Purification, Purified, Vae
from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.record import Record
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.types import Finding, Split
from palimpsest.unlearn.finetune import Finetune
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import run

SMALL = Purification(width=8, latent=4, shrink=2, epochs=3, noise=0.1)


@pytest.fixture(scope="module")
def shop(digits: Split, digits_task: Classification, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    torch.set_num_threads(1)
    return Workshop(Store(tmp_path_factory.mktemp("store")), digits_task, digits.fingerprint)


def test_it_gives_back_clean_images_of_noisy_ones(digits: Split, shop: Workshop) -> None:
    """Trained, the reconstruction of a noisy image lies nearer to the clean one than the mean image does, by far."""
    some = digits.train.take(np.arange(600))
    how = Purification(width=8, latent=4, shrink=2, epochs=40, lr=5e-3, noise=0.1)
    with Rng(0).child("weights").ambient():
        part, fresh = how.part(shop.task), how.part(shop.task)
    images, meter = some.batch().inputs[shop.task.attacked_input], Meter()
    how.prepare(part, shop.task, some, rng=Rng(1), meter=meter)
    noisy = (images + 0.1 * (2 * torch.rand(images.shape, generator=Rng(2).torch()) - 1)).clamp(0, 1)
    with torch.no_grad():
        error, untrained = ((net(noisy) - images).square().mean().item() for net in (part, fresh))
    spread = (images - images.mean(0)).square().mean().item()
    assert error < 0.4 * spread < untrained
    assert meter.samples == 40 * len(some)
    assert not part.training


def test_the_code_is_drawn_from_its_posterior_and_pulled_to_the_normal(digits: Split, shop: Workshop) -> None:
    """The loss, written out: squared error plus β times the divergence per value."""
    vae = Vae(1, 4, 2, 2)
    images = digits.train.take(np.arange(5)).batch().inputs[shop.task.attacked_input]
    how = Purification(width=4, latent=2, shrink=2, beta=0.3)
    found = how._loss(vae, images, images, torch.Generator().manual_seed(3))
    mean, log_variance = vae.encode(images)
    assert mean.shape == (5, 2, 4, 4)
    normal = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    back = vae.decode(mean + torch.exp(log_variance / 2) * normal)
    posterior = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    divergence = (
        torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum() / images.numel()
    )
    assert found.item() == pytest.approx(((back - images).square().mean() + 0.3 * divergence).item(), rel=1e-5)


def test_gradients_pass_through_it_and_its_answer_is_the_models_on_the_reconstruction(shop: Workshop) -> None:
    model, vae = Linear().build(shop.task, Rng(0)), Vae(1, 4, 2, 2)
    images = torch.rand(3, *shop.task.shape, requires_grad=True)
    served = Purified(vae, model).eval()
    assert torch.equal(served(images), model(vae(images)))
    (slope,) = torch.autograd.grad(served(images).sum(), images)
    assert (slope != 0).any()


def test_it_is_made_once_from_the_retain_set_and_serves_every_model(digits: Split, shop: Workshop) -> None:
    retain = digits.train.take(np.arange(100, 200))
    models = [
        shop.fit(Plain(), Recipe(epochs=1), Linear(), digits.train.take(np.arange(n)), Rng(n)) for n in (150, 200)
    ]
    before = shop.made["models"]
    one, other = (shop.release(SMALL, made, retain, Rng(0).child("release")) for made in models)
    assert shop.made["models"] == before + 1
    assert one.key != other.key
    parts = [made.trained.model.purifier.state_dict() for made in (one, other)]
    assert all(torch.equal(value, parts[1][name]) for name, value in parts[0].items())
    assert one.cost.samples == models[0].cost.samples + 3 * 100
    assert set(one.holds) == {*models[0].holds, *retain.ids}
    entry = next(e for e in shop.store.entries() if e.kind == "release")
    assert entry.spec["release"]["name"] == "purification"


def test_what_it_cannot_purify_is_refused(digits: Split, shop: Workshop) -> None:
    with pytest.raises(BadInput, match="expected a power of 2"):
        Purification(shrink=3).part(shop.task)
    with pytest.raises(BadInput, match="expected images whose sides are multiples of 16"):
        Purification(shrink=16).part(shop.task)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Fine-tuning, bare and behind a purifier, attacked by one who knows of it and one who does not."""
    attacks = (Uma(epsilon=(16 / 255,), steps=3, layout="contiguous"), ConfidenceMembership())
    return run(
        tmp_path_factory.mktemp("purified"),
        unlearners=(Finetune(epochs=1, batch_size=64),),
        attacks=attacks,
        verifiers=(Accuracy(),),
        defences=(SMALL,),
        controls=2,
    )


LABELS = ("finetune", "finetune+purification", "finetune+purification (unknown)")


def test_each_way_of_serving_has_its_own_controls_and_verdict(record: Record) -> None:
    assert [row.unlearner for row in record.verdicts] == list(LABELS)
    assert [row.defence for row in record.verdicts] == [None, "purification", "purification"]
    ways = {cell.learner for cell in record.cells}
    assert ways == {"plain", "plain+purification", "plain+purification (unknown)"}
    for way, label in zip(("plain", "plain+purification", "plain+purification (unknown)"), LABELS, strict=True):
        mine = [cell for cell in record.cells if cell.learner == way]
        assert {cell.defence for cell in mine} == ({None} if label == "finetune" else {"purification"})
        targets = {(c.target, c.replica, c.unlearner) for c in mine if c.attack == "uma"}
        assert targets == {
            ("original", 0, ""), ("retrained", 0, ""), ("retrained", 1, ""),
            ("unlearned", 0, label), ("bias-matched", 0, label), ("bias-matched", 1, label),
        }  # fmt: skip
        assert all(cell.status == "ok" for cell in mine)
    assert record.settings["homes"]["plain+purification"]["release"]["name"] == "purification"


def test_an_attacker_who_does_not_know_attacks_the_bare_model_and_is_scored_on_the_served_one(record: Record) -> None:
    def rows(label: str) -> dict[tuple[str, int], float]:
        return {
            (cell.target, cell.replica): m.value
            for cell in record.cells
            if cell.attack == "uma" and cell.learner == label.replace("finetune", "plain")
            for m in cell.measures
            if m.name == "uma.forget_accuracy" and m.at["epsilon"] == 0.0
        }

    knows, not_ = rows("finetune+purification"), rows("finetune+purification (unknown)")
    assert knows == not_, "unattacked, it is the same served model"
    scores = {cell.learner: cell.scores for cell in record.cells if cell.attack == "uma" and cell.target == "unlearned"}
    assert len(set(scores.values())) == 3
    others = {cell.learner for cell in record.cells if cell.attack == "confidence_membership"}
    assert others == {"plain", "plain+purification"}, "it reads answers: what it does not know makes no difference"


def test_another_method_makes_no_score_again(tmp_path: Path) -> None:
    """What one method's unknowing attacker is shown has no part in another's scores."""
    said: list[str] = []
    how = {"verifiers": (Accuracy(),), "defences": (SMALL,), "controls": 1, "reported": False, "say": said.append}
    one, two = Finetune(epochs=1, batch_size=64), Finetune(epochs=1, lr=0.2, batch_size=64)
    run(tmp_path, unlearners=(one,), **how)
    run(tmp_path, unlearners=(one, two), **how)
    bare = 3 + 2  # the method: uma, membership, accuracy; its bias-matched control: no membership
    unknowing = 2  # uma on either; answers are the served model's, whoever attacks
    assert said[-1].startswith(f"made 1 models and {2 * bare + unknowing} score sets"), said[-1]


def test_a_purifier_that_cannot_be_trained_leaves_the_rest_of_the_audit(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        reported=False,
        unlearners=(Finetune(epochs=1, batch_size=64),),
        verifiers=(Accuracy(),),
        defences=(replace(SMALL, lr=1e12),),
        controls=1,
    )
    rows = {row.unlearner: row for row in record.verdicts}
    assert set(rows) == set(LABELS)
    for label in LABELS[1:]:
        assert rows[label].verdict == Finding.INCONCLUSIVE
        assert "purification could not be made" in rows[label].because[0]
    failed = [cell for cell in record.cells if cell.status == "failed"]
    assert {cell.unlearner for cell in failed} == set(LABELS[1:])
    assert {cell.learner for cell in record.cells if cell.status == "ok"} == {"plain"}


def test_a_purifier_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a power of 2"):
        run(tmp_path, defences=(replace(SMALL, shrink=3),))
    assert not (tmp_path / "store" / "artifacts").exists()
