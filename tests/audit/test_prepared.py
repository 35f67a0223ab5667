"""Audits of poisoned trainings: what is handed in is trained on and asked to be forgotten, beside a model that never saw it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from palimpsest import record as records
from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.poisoning.gaussian import Gaussian
from palimpsest.attack.poisoning.label_flip import LabelFlip
from palimpsest.attack.poisoning.patch_backdoor import PatchBackdoor
from palimpsest.catalog import setting
from palimpsest.contract.bench import Bench
from palimpsest.contract.judges import JUDGES
from palimpsest.errors import BadInput, ContractError
from palimpsest.learn.recipe import Recipe
from palimpsest.models.mlp import Mlp
from palimpsest.pipeline import audit
from palimpsest.record import Record
from palimpsest.report import panels
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.threat import Submission, TrainingView
from palimpsest.types import Finding
from palimpsest.verify.accuracy import Accuracy
from palimpsest.workers import Workers
from tests.audit.small import plan, run

CASE = {
    "model": Mlp(width=64, layers=2),
    "recipe": Recipe(epochs=25, batch_size=16),
    "forget": ("random=60",),
    "attacks": (LabelFlip(), ConfidenceMembership()),
    "verifiers": (Accuracy(),),
    "controls": 1,
}


def value(record: Record, target: str, name: str, label: str = "", request: int = 0) -> float:
    cells = [c for c in record.cells if (c.target, c.unlearner, c.request) == (target, label, request)]
    return next(m.value for c in cells for m in c.measures if m.name == name)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("prepared")
    return folder, run(folder, **CASE)


def test_the_poisoned_model_stands_beside_a_retrained_and_a_clean_one(done: tuple[Path, Record]) -> None:
    record = done[1]
    assert {cell.status for cell in record.cells} == {"ok"}
    assert {cell.prepared for cell in record.cells} == {"label_flip"}
    success = "label_flip.success_rate"
    assert value(record, "original", success) > value(record, "retrained", success) + 0.1
    assert value(record, "clean", success) < 0.2
    assert value(record, "clean", "forget_accuracy") < 0.2, "of the labels that were handed in"
    minus = {row.minus for row in record.comparisons if row.attack == "label_flip"}
    assert minus == {"retrained", "clean", "original"}
    by = {(cell.target, cell.attack or cell.verifier) for cell in record.cells if cell.target == "clean"}
    assert by == {("clean", "label_flip"), ("clean", "accuracy")}, "membership in the clean model is no question"
    assert next(v.verdict for v in record.verdicts if v.unlearner == "retrain") != Finding.RESIDUAL
    page = (done[0] / "out" / "report.html").read_text(encoding="utf-8")
    assert "nobody poisons" in page
    assert "some of them as label_flip handed them in, and made to forget" in page
    assert "Poisoned images" in page
    assert len(re.findall(r"as (\d), is (?!\1)\d", page)) >= 6, "under another class each"
    (panel,) = panels.load(done[0] / "out")
    assert (panel.images[:, 0] == panel.images[:, 1]).all(), "flipped labels leave the images"


def test_a_second_run_makes_nothing_and_workers_find_the_same(done: tuple[Path, Record], tmp_path: Path) -> None:
    folder, record = done
    said: list[str] = []
    again = run(folder, out="again", say=said.append, reported=False, **CASE)
    assert said[-1].startswith("made 0 models and 0 score sets")
    others = run(tmp_path, reported=False, workers=Workers(2), **CASE)
    for other in (again, others):
        assert [c.measures for c in other.cells] == [c.measures for c in record.cells]


def test_models_that_never_saw_the_poison_are_those_of_an_honest_audit(done: tuple[Path, Record]) -> None:
    """The clean model is the honest audit's original, and its retrained controls are the poisoned audit's."""
    said: list[str] = []
    honest = {**CASE, "attacks": (ConfidenceMembership(),), "unlearners": plan().unlearners[:1]}
    run(done[0], out="honest", say=said.append, reported=False, **honest)
    assert said[-1].startswith("made 1 models"), "retraining from the clean original alone"


def test_every_request_in_a_row_asks_for_a_part_of_what_was_handed_in(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        reported=False,
        **{**CASE, "forget": ("random=40", "random=30"), "attacks": (Gaussian(), LabelFlip())[:1]},
    )
    told = {name: {} for name in ("gaussian.shift", "gaussian.detected_z", "gaussian.undetected_z")}
    for cell in record.cells:
        for m in cell.measures:
            told.get(m.name, {})[cell.request] = m.n
    assert told["gaussian.shift"] == {0: 70, 1: 70}, "all that was handed in"
    assert told["gaussian.detected_z"] == {0: 40}, "of the first request, and the others, while there are any"
    assert told["gaussian.undetected_z"] == {0: 30}


def test_what_is_not_detected_stays_in_the_retrained_control_too(tmp_path: Path) -> None:
    """A third of the flipped records is asked to be forgotten: retraining without it learns the rest, of which the backdoor is an
    example that still works."""
    backdoor = {**CASE, "attacks": (PatchBackdoor(),), "unlearners": plan().unlearners[:1]}
    record = run(tmp_path, reported=False, detected=0.33, **backdoor)
    (request,) = record.requests
    assert request.selection == "random=60, 33% of it detected"
    assert len(request.ids) == 20
    success = "patch_backdoor.success_rate"
    assert value(record, "retrained", success) > value(record, "clean", success) + 0.3
    (panel,) = panels.load(tmp_path / "out")
    before, after = panel.images[:, 0], panel.images[:, 1]
    assert (after[..., -2:, -2:] == 1).all(), "the patch, in white"
    assert (before[..., -2:, -2:] < 1).any(axis=(1, 2, 3)).all()
    away = np.ones(before.shape[-2:], dtype=bool)
    away[-2:, -2:] = False
    assert (before[..., away] == after[..., away]).all(), "and nothing beside it"
    assert (panel.given == 0).all()
    whole = run(tmp_path, out="whole", reported=False, **backdoor)
    assert value(whole, "retrained", success) < value(record, "retrained", success) - 0.3


def test_of_flipped_labels_those_that_were_not_detected_are_scored_too(tmp_path: Path) -> None:
    """A third of sixty is unlearned by retraining: of these the labels are gone, of the others they are learnt again."""
    record = run(tmp_path, reported=False, detected=0.33, **{**CASE, "unlearners": plan().unlearners[:1]})
    counts = {m.name: m.n for c in record.cells if c.target == "retrained" for m in c.measures}
    names = "label_flip.success_rate", "label_flip.detected_success_rate", "label_flip.undetected_success_rate"
    assert [counts[name] for name in names] == [60, 20, 40]
    overall, gone, left = (value(record, "retrained", name) for name in names)
    assert overall == pytest.approx((20 * gone + 40 * left) / 60)
    assert left > gone + 0.1


@dataclass(frozen=True)
class Overstepping(LabelFlip):
    """Declares a bound, and changes one value of one record by more."""

    epsilon: float = setting(8 / 255, "greatest change of a value", source="the test")
    beyond: float = setting(0.0, "by how much more one is changed", source="the test")

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        found = super().prepare(view, rng=rng)
        image = found.inputs["image"].clone()
        place = image[0].flatten().argmin()
        image[0].view(-1)[place] += self.epsilon + self.beyond
        order = torch.arange(len(found.ids) - 1, -1, -1)  # any order is a submission's own
        kept = {"true": found.kept["true"][order]}
        return Submission(found.ids[order.numpy()], {"image": image[order]}, found.targets[order], kept)


def test_changes_beyond_an_attacks_own_bound_are_refused(tmp_path: Path) -> None:
    """Of what is handed in, not of what the attack says of itself; a contract check finds the same."""
    brief = {**CASE, "recipe": Recipe(epochs=1), "verifiers": (Accuracy(),), "unlearners": plan().unlearners[:1]}
    within = run(tmp_path, out="within", reported=False, **{**brief, "attacks": (Overstepping(),)})
    assert {cell.status for cell in within.cells} == {"ok"}
    with pytest.raises(ContractError, match=r"changed by 0.03\d* of its range, beyond ε = 0.03137, expected"):
        run(tmp_path, reported=False, **{**brief, "attacks": (Overstepping(beyond=0.001),)})
    name, bench = "hands in records of its own", Bench(recipe=Recipe(epochs=1, batch_size=32))
    check = JUDGES["attacks"][name]
    check(Overstepping(), bench)
    with pytest.raises(ContractError, match="beyond ε"):
        check(Overstepping(beyond=0.001), bench)


def test_redacted_nothing_that_was_handed_in_is_kept(tmp_path: Path) -> None:
    plain, redacted = Store(tmp_path / "plain" / "store"), Store(tmp_path / "redacted" / "store", redact=True)
    found = {}
    for store in (plain, redacted):
        folder = store.root.parent
        found[folder.name] = audit(plan(**CASE), store, folder / "out")
    assert panels.load(tmp_path / "plain" / "out")
    assert not panels.load(tmp_path / "redacted" / "out")
    kinds = {store.root.parent.name: {entry.kind for entry in store.entries()} for store in (plain, redacted)}
    assert "submission" in kinds["plain"]
    assert "submission" not in kinds["redacted"]
    assert [c.measures for c in found["plain"].cells] == [c.measures for c in found["redacted"].cells]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attacks": (LabelFlip(), Gaussian())}, "label_flip, gaussian, expected one at most"),
        ({"separate": True}, "--separate and label_flip"),
        ({"detected": 0.5, "attacks": (ConfidenceMembership(),)}, "0.5 and no attack that hands in records"),
        ({"detected": 1.5}, "expected a share above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        plan(**{**CASE, **changes})


def test_a_backdoor_for_a_class_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"patch_backdoor.to: got 10, expected a class from 0 to 9"):
        run(tmp_path, **{**CASE, "attacks": (PatchBackdoor(to=10),)})


def test_the_record_can_be_read_again(done: tuple[Path, Record]) -> None:
    assert records.read(done[0] / "out") == done[1]
