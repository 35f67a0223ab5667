"""A run that is killed at any moment goes on where it was and loses nothing."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from palimpsest.record import read
from palimpsest.store import Store
from tests.audit.small import numbers, run


def artifacts(store: Store) -> set[str]:
    return {entry.key for entry in store.entries() if entry.kind != "checkpoint"}


def kill_often(folder: Path, times: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.audit.small"])
    whole = run(folder / "whole")
    victim, rng = folder / "killed", random.Random(0)
    begin = time.perf_counter()
    process = context.Process(target=run, args=(folder / "timed",))
    process.start()
    process.join()
    assert process.exitcode == 0
    length = time.perf_counter() - begin
    survived: set[str] = set()
    for _ in range(times):
        process = context.Process(target=run, args=(victim,))
        process.start()
        process.join(rng.uniform(0.0, length))
        process.kill()
        process.join()
        store = Store(victim / "store")
        assert store.verify() == []
        assert survived <= artifacts(store), "an artifact that was there is gone"
        survived = artifacts(store)
        if (victim / "out" / "record.json").exists():
            assert numbers(read(victim / "out")) == numbers(whole)
    assert numbers(run(victim)) == numbers(whole)
    assert artifacts(Store(victim / "store")) == artifacts(Store(folder / "whole" / "store"))
    assert not list((victim / "out").rglob(".*"))


def test_killed_at_random_moments(tmp_path: Path) -> None:
    kill_often(tmp_path, 4)


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path: Path) -> None:
    kill_often(tmp_path, 60)
