"""Artifacts are there whole or not at all when a disk fills up or a process is killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from palimpsest.disk import HOST, clear_scratch, mark, write_atomically
from palimpsest.errors import StoreError
from palimpsest.store import Store
from tests.stored import TENSORS, put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize("call", ["fsync", "replace", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error_and_nothing_half_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    put(store)
    real, calls = getattr(os, call), []

    def full(*args: Any) -> Any:
        calls.append(args)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StoreError, match=r"no space left on the disk.*free some space") as error:
        store.put("model", {"seed": 1}, TENSORS, {}, ["c"])
    assert "\n" not in str(error.value)
    monkeypatch.setattr(os, call, real)
    assert calls
    assert not list((store.root / "tmp").iterdir())
    assert [entry.spec["seed"] for entry in store.entries()] == [0]
    assert store.verify() == []
    put(store, {"seed": 1})
    assert store.get("model", {"seed": 1}) is not None


def test_a_write_that_ends_halfway_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_atomically(path, b"new and longer")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# kills and several processes: forked in a process of their own, where no other thread is

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from palimpsest.store import Store

torch.set_num_threads(1)
root = Path(sys.argv[1])


def put(store, value):
    store.put("model", {"seed": 0}, {"w": torch.full((50,), float(value))}, {"value": value}, [f"r{value}"])


def deadly(at, after):
    # dies at the at-th call that changes the disk, before or after it
    calls = [0]
    import shutil
    for owner, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (shutil, "rmtree")):
        def wrapped(*args, real=getattr(owner, name), **kwargs):
            calls[0] += 1
            mine = calls[0] == at
            if mine and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **kwargs)
            finally:
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)
        setattr(owner, name, wrapped)


def child(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)


deaths, lost = 0, 0
for after in (False, True):
    for at in range(1, 100):
        store = Store(root / f"{after}-{at}")
        put(store, 1)
        def work():
            deadly(at, after)
            put(store, 2)
        status = os.waitpid(child(work), 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            assert at > 8, at
            break
        deaths += 1
        fresh = Store(store.root)
        assert fresh.verify() == [], "a half artifact"
        found = fresh.get("model", {"seed": 0})
        if found is None:  # only between the two renames of a replacement
            lost += 1
        else:
            value = found.info["value"]
            assert value in (1, 2) and found.tensors["w"].tolist() == [float(value)] * 50
            (entry,) = fresh.entries()
            assert fresh.held(entry.holds) == [f"r{value}"]
        put(fresh, 3)
        assert fresh.get("model", {"seed": 0}).info == {"value": 3}
        fresh.gc()
        left = sorted(p.name for folder in ("tmp", "ids") for p in (fresh.root / folder).iterdir())
        assert len(left) == 1, left
assert deaths > 16, deaths
assert lost <= 2, lost

shared = Store(root / "shared")
shared.open()
def write():
    for value in range(60):
        put(shared, value % 3)
def read():
    for _ in range(200):
        found = shared.get("model", {"seed": 0})
        assert found is None or found.tensors["w"].tolist() == [float(found.info["value"])] * 50
writers = [child(write), child(write), child(read)]
assert [os.waitpid(pid, 0)[1] for pid in writers] == [0, 0, 0]
assert shared.verify() == []
put(shared, 5)
assert shared.get("model", {"seed": 0}).info == {"value": 5}
print("deaths", deaths)
"""


def test_a_kill_at_any_moment_leaves_all_or_nothing_and_two_writers_do_not_meet(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "deaths" in ended.stdout


def test_tensors_on_their_way_in_are_copies(store: Store) -> None:
    value: Tensor = torch.zeros(3)
    written = store.put("x", {}, {"v": value}, {}, ["a"])
    value.add_(1)
    assert written.tensors["v"].tolist() == [0.0, 0.0, 0.0]


def test_scratch_files_of_killed_writers_are_cleared(tmp_path: Path) -> None:
    dead, alive = 2**22 + 1, os.getppid()
    inner = tmp_path / "figures"
    inner.mkdir()
    left = inner / f".record.png.{dead}-{'0' * 32}"
    elsewhere = inner / f".record.png.{dead}-{'f' * 8}-{'0' * 32}", inner / f".record.png.{dead}-{'e' * 8}-{'0' * 32}"
    others = [
        inner / f".record.png.{alive}-{'0' * 32}",
        inner / f".record.png.{alive}-{HOST}-{'0' * 32}",
        elsewhere[0],
        tmp_path / ".gitignore",
        tmp_path / "record.json",
    ]
    mine = inner / f".record.png.{mark()}"
    for path in (left, mine, elsewhere[1], *others):
        path.touch()
    os.utime(elsewhere[1], (0, 0))
    clear_scratch(tmp_path)
    assert not left.exists()
    assert not mine.exists(), "this process writes nothing now"
    assert not elsewhere[1].exists(), "of another machine, and old"
    assert all(path.exists() for path in others)
