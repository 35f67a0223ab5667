"""An audit of a model of images, on digits: the same pipeline, its own yardstick and controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import torch
from torch import nn

from palimpsest.attack.residual.uma import Uma
from palimpsest.attack.residual.uma_generation import UmaGeneration
from palimpsest.audit.plan import Plan
from palimpsest.cli import main
from palimpsest.data.digits import Digits
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.learn.sharded import Sharded
from palimpsest.models.masked_autoencoder import MaskedAutoencoder
from palimpsest.options import make_plan
from palimpsest.pipeline import audit
from palimpsest.presets import choices
from palimpsest.purge import purge
from palimpsest.record import Record
from palimpsest.report.panels import FILE, Strip, load
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.tuning import tune
from palimpsest.types import Examples, Finding
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.fisher import Fisher
from palimpsest.unlearn.image_to_image import ImageToImage
from palimpsest.unlearn.retrain import Retrain
from palimpsest.verify.reconstruction import Reconstruction
from tests.audit.small import numbers

MODEL = MaskedAutoencoder(patch=2, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1)


@dataclass(frozen=True)
class Noise(Unlearner):
    """Learns to draw grey, of everything that it is to forget, and forgets the rest with it."""

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        adam, draw = torch.optim.Adam(model.parameters(), 0.01), rng.torch()
        for _ in range(25):
            batch = forget.batch()
            noise = trained.task.randomise(batch.targets, draw)
            meter.step(trained.task.loss(model, batch.with_targets(noise)), adam, len(batch))


@dataclass(frozen=True)
class Nothing(Unlearner):
    """Does nothing at all."""

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        meter.count(0, 0)


def plan(**changes: Any) -> Plan:
    base = Plan(
        data=Digits(limit=300),
        model=MODEL,
        forget=("class=0",),
        unlearners=(Retrain(), ImageToImage(lr=1e-3, epochs=1, batch_size=64), Noise(), Nothing()),
        attacks=(UmaGeneration(steps=4, records=12, extractor_width=2, extractor_epochs=1),),
        verifiers=(Reconstruction(records=40),),
        recipe=Recipe(epochs=8, batch_size=32, optimizer="adamw", lr=5e-3),
        seeds=(0,),
        threads=1,
    )
    return replace(base, **changes)


def run(folder: Path, out: str = "out", *, redact: bool = False, **changes: Any) -> Record:
    return audit(plan(**changes), Store(folder / "store", redact), folder / out)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("drawn")
    return folder, run(folder)


def test_every_seat_is_taken_and_nothing_fails(ran: tuple[Path, Record]) -> None:
    _, record = ran
    assert all(cell.status == "ok" for cell in record.cells), [cell.reason for cell in record.cells]
    seen = {(cell.target, cell.attack or cell.verifier) for cell in record.cells}
    both = {"original", "retrained", "unlearned"}
    assert seen == {(target, by) for target in both for by in ("uma_generation", "reconstruction")} | {
        ("untrained", "uma_generation")
    }
    assert {row.minus for row in record.comparisons if row.attack} == {"retrained", "untrained", "original"}
    assert record.model["name"] == "masked_autoencoder"


def test_verdicts_are_what_they_must_be(ran: tuple[Path, Record]) -> None:
    found = {row.unlearner.rsplit(":", 1)[-1]: row for row in ran[1].verdicts}
    assert found["retrain"].verdict in (Finding.FORGOTTEN, Finding.INCONCLUSIVE)
    assert found["Noise"].verdict == Finding.OVER_FORGOTTEN
    assert any("test quality" in reason or "recovery rate" in reason for reason in found["Noise"].because)
    assert found["Nothing"].verdict == Finding.NOT_APPLIED


def test_the_original_is_like_itself_and_an_untrained_model_like_nothing(ran: tuple[Path, Record]) -> None:
    def value(target: str, name: str, epsilon: float) -> float:
        cells = [cell for cell in ran[1].cells if cell.target == target and cell.attack]
        return next(m.value for m in cells[0].measures if m.name.endswith(name) and m.at == {"epsilon": epsilon})

    assert value("original", ".forget_resemblance", 0.0) == 1.0
    assert value("original", ".forget_l1", 0.0) == 0.0
    assert value("untrained", ".forget_resemblance", 0.0) < 0.2
    assert value("original", ".forget_fid_resnet18", 8 / 255) > 0


def test_a_second_run_makes_nothing(ran: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was trained or attacked again")

    monkeypatch.setattr("palimpsest.learn.loop.Meter.step", forbidden)
    monkeypatch.setattr("palimpsest.attack.base.Attack.run", forbidden)
    monkeypatch.setattr("palimpsest.pipeline.report.write", lambda out: None)
    assert numbers(run(ran[0], "again")) == numbers(ran[1])


def test_the_report_shows_what_was_drawn(ran: tuple[Path, Record]) -> None:
    folder = ran[0] / "out"
    strips = load(folder)
    assert all(isinstance(strip, Strip) for strip in strips)
    assert {strip.target for strip in strips} == {"original", "retrained", "untrained", "unlearned"}
    for strip in strips:
        assert isinstance(strip, Strip)
        assert strip.images.shape == (6, 6, 1, 8, 8)
        assert (strip.retained, [int(label) == 0 for label in strip.label]) == (2, [True] * 4 + [False] * 2)
    text = (folder / "report.html").read_text(encoding="utf-8")
    for words in ("truth, I₀", "seen, Iₘ", "original, I₁", "attacked, unbounded, I₃", "Test quality", "untrained"):
        assert words in text, words
    assert "Accuracies" not in text


def test_a_redacted_audit_keeps_no_image(ran: tuple[Path, Record], tmp_path: Path) -> None:
    record = run(tmp_path, redact=True, unlearners=(Retrain(),), controls=1)
    assert not (tmp_path / "out" / FILE).exists()
    assert "truth, I₀" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    store = Store(tmp_path / "store")
    kept = [store.read(entry.kind, entry.key) for entry in store.entries() if entry.kind == "scores"]
    assert kept
    assert all("attacked" not in found.tensors for found in kept if found)
    assert record.redacted


def test_a_purge_takes_the_strips_that_show_a_record(ran: tuple[Path, Record], tmp_path: Path) -> None:
    import shutil

    out = shutil.copytree(ran[0] / "out", tmp_path / "out")
    store = Store(shutil.copytree(ran[0] / "store", tmp_path / "store"))
    shown = load(out)[0]
    assert isinstance(shown, Strip)
    purge([shown.ids[0]], store, reports=[out])
    assert not any(shown.ids[0] in strip.ids for strip in load(out))
    if (out / FILE).exists():
        assert safetensors.numpy.load((out / FILE).read_bytes())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"attacks": (Uma(),)}, "uma: got a model of the task reconstruction, expected one of the task classification"),
        ({"unlearners": (Fisher(),)}, "fisher: got a model of the task reconstruction"),
        ({"learner": Sharded()}, "sharded: got a model of the task reconstruction"),
        ({"model": MaskedAutoencoder(patch=3)}, "patches of 3×3 and records of shape"),
    ],
)
def test_what_needs_classes_is_refused_before_anything_is_trained(
    changes: dict[str, Any], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palimpsest.learn.loop.Meter.step", lambda *args: pytest.fail("trained"))
    with pytest.raises(BadInput, match=match):
        run(tmp_path, **changes)


def test_tuning_says_that_it_is_not_for_images(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="accuracy: got a model of the task reconstruction"):
        tune(plan(), Store(tmp_path), trials=1)


def test_the_model_decides_what_is_asked_by_default() -> None:
    asked = make_plan(choices({"data": "digits", "model": "masked_autoencoder", "forget": ["class=0"]}))
    assert [type(attack).__name__ for attack in asked.attacks] == ["UmaGeneration"]
    assert [type(verifier).__name__ for verifier in asked.verifiers] == ["Reconstruction"]
    assert ImageToImage() in asked.unlearners
    classifies = make_plan(choices({"data": "digits", "model": "mlp", "forget": ["class=0"]}))
    assert [type(attack).__name__ for attack in classifies.attacks] == ["Uma", "ConfidenceMembership"]
    assert len(classifies.verifiers) == 4


def test_single_steps_take_the_task_from_the_model_too(tmp_path: Path) -> None:
    few = ["--data", "digits", "--limit", "100", "--model", "masked_autoencoder", "--set", "masked_autoencoder.patch=4"]
    few += ["--set", "masked_autoencoder.width=8", "--set", "masked_autoencoder.heads=2"]
    few += ["--set", "masked_autoencoder.decoder_width=8"]
    weights = str(tmp_path / "one.safetensors")
    store = ["--store", str(tmp_path / "store")]
    assert main(["train", *few, *store, "--set", "recipe.epochs=1", "--out", weights]) == 0
    after = str(tmp_path / "two.safetensors")
    asked = ["--forget", "class=0", "--with", "image_to_image", "--set", "image_to_image.epochs=1"]
    assert main(["unlearn", *few, "--weights", weights, *asked, "--out", after]) == 0
    assert (tmp_path / "two.safetensors").exists()
    imported = ["--original", weights, "--unlearned", after, "--forget", "class=0", "--out", str(tmp_path / "out")]
    quick = ["--set", "uma_generation.steps=1", "--set", "uma_generation.extractor_epochs=1"]
    quick += ["--set", "uma_generation.extractor_width=2", "--set", "uma_generation.records=5"]
    assert main(["audit", *few, *imported, *quick, *store]) == 0
