"""An audit of SISA: two requests in order, from the store the second time, purged to the last slice."""

from __future__ import annotations

from pathlib import Path

import pytest

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.learn.sharded import Sharded
from palimpsest.models.mlp import Mlp
from palimpsest.record import Record
from palimpsest.store import Store
from palimpsest.unlearn.sisa import Sisa
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import numbers, run

ASKED = {
    "model": Mlp(width=8), "learner": Sharded(shards=2, slices=2), "unlearners": (Sisa(),), "verifiers": (Accuracy(),),
    "attacks": (ConfidenceMembership(),), "forget": ("random=5", "random=3"), "controls": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("sharded")
    return folder, run(folder, **ASKED)


def test_both_requests_are_granted(ran: tuple[Path, Record]) -> None:
    _, record = ran
    assert {cell.request for cell in record.cells if cell.unlearner == "sisa"} == {0, 1}
    assert all(cell.status == "ok" for cell in record.cells), [cell.reason for cell in record.cells]
    assert [len(request.ids) for request in record.requests] == [5, 3]


def test_a_second_run_takes_all_from_the_store(ran: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record = ran

    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("palimpsest.learn.sharded.train", refuse)
    assert numbers(run(folder, **ASKED, reported=False)) == numbers(record)


def test_the_slices_kept_hold_no_forgotten_record(ran: tuple[Path, Record]) -> None:
    """A purge of what was forgotten leaves the last release, which is exact, and takes what is older."""
    folder, record = ran
    store = Store(folder / "store")
    gone = [name for request in record.requests for name in request.ids]
    assert store.purge(gone)
    left = [entry for entry, held in store.holding(gone) if not held]
    assert len(left) == len(list(store.entries()))
    releases = [entry for entry in left if entry.kind == "model" and "unlearner" in entry.spec]
    assert [entry.spec["unlearner"]["name"] for entry in releases] == ["sisa"]
