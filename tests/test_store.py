"""Artifacts are there whole or not at all, whatever happens; records can be taken out of them again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palimpsest import store as module
from palimpsest.errors import BadInput, CorruptArtifact, NewerFormat, StoreError
from palimpsest.store import Store, digest, environment
from tests.stored import SPEC, TENSORS, put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def artifact_file(store: Store, name: str) -> Path:
    (found,) = (store.root / "artifacts").glob(f"*/*/*/{name}")
    return found


def test_what_is_put_comes_back(store: Store) -> None:
    written = store.put("model", SPEC, TENSORS, {"share": np.float64(0.5), "ids": np.array([1, 2])}, ["b", "a"])
    read = store.get("model", SPEC)
    assert read is not None
    for found in (written, read):
        assert found.info == {"share": 0.5, "ids": [1, 2]}
        assert found.tensors.keys() == TENSORS.keys()
        assert all(torch.equal(found.tensors[name], value) for name, value in TENSORS.items())


def test_types_layouts_and_shared_memory_survive(store: Store) -> None:
    base = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    tensors = {"base": base, "view": base[1], "bf": base.bfloat16(), "empty": torch.zeros(0), "flag": base > 0}
    store.put("x", {}, tensors, {}, ["a"])
    found = store.get("x", {})
    assert found is not None
    for name, value in tensors.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value)


def test_another_spec_or_kind_is_another_artifact(store: Store) -> None:
    put(store)
    assert store.get("model", {**SPEC, "seed": 1}) is None
    assert store.get("scores", SPEC) is None
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": np.float64(0.5)}) == digest({"a": 0.5})
    with pytest.raises(TypeError, match="expected a JSON value"):
        digest({"a": object()})


def test_threads_are_part_of_the_environment() -> None:
    one = environment()
    torch.set_num_threads(2)
    try:
        assert digest(environment()) != digest(one)
    finally:
        torch.set_num_threads(1)


def test_the_later_put_replaces_and_leaves_nothing_behind(store: Store) -> None:
    put(store)
    store.put("model", SPEC, {"w": torch.ones(1)}, {"epoch": 4}, ["a", "b"])
    found = store.get("model", SPEC)
    assert found is not None
    assert found.info == {"epoch": 4}
    assert found.tensors["w"].tolist() == [1.0]
    assert len(list(store.entries())) == 1
    assert not list((store.root / "tmp").iterdir())


def test_drop_removes_and_twice_is_no_error(store: Store) -> None:
    put(store)
    store.drop("model", SPEC)
    store.drop("model", SPEC)
    assert store.get("model", SPEC) is None


@pytest.mark.parametrize("file", ["tensors.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_artifact_is_detected_and_made_again(store: Store, file: str, damage: str) -> None:
    put(store)
    path = artifact_file(store, file)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        at = data.index(b"0.25") if file == "manifest.json" else len(data) - 3  # the stored loss, or a weight
        data[at] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-20])
    else:
        path.unlink()
    assert [entry.key for entry in store.verify()] == [store.key("model", SPEC)]
    with pytest.raises(CorruptArtifact):
        store.read("model", store.key("model", SPEC))
    assert store.get("model", SPEC) is None
    assert not list(store.entries())
    put(store)
    assert store.get("model", SPEC) is not None
    assert not store.verify()


def test_a_sound_store_verifies(store: Store) -> None:
    put(store)
    put(store, {"seed": 1})
    assert store.verify() == []
    (first, second) = store.entries()
    assert {first.spec["seed"], second.spec["seed"]} == {0, 1}
    assert first.bytes == sum(part.stat().st_size for part in first.path.iterdir())


def test_a_manifest_from_before_there_were_seals_is_taken(store: Store) -> None:
    put(store)
    path = artifact_file(store, "manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["seal"]
    path.write_text(json.dumps(manifest))
    assert store.get("model", SPEC) is not None


def test_a_newer_format_is_refused_and_untouched(store: Store) -> None:
    put(store)
    (store.root / "FORMAT").write_text(json.dumps({"format": module.FORMAT + 1}))
    before = sorted(store.root.rglob("*"))
    later = Store(store.root)
    for act in (lambda: later.get("model", SPEC), lambda: put(later, {"seed": 9}), lambda: later.purge(["a"])):
        with pytest.raises(NewerFormat, match=r"got format 2, expected at most 1; update palimpsest-ml"):
            act()
    assert sorted(store.root.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x"}'])
def test_a_folder_that_is_no_store_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "FORMAT").write_text(text)
    with pytest.raises(StoreError, match="is this a store"):
        Store(tmp_path).open()


def test_a_store_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="choose a folder that you may write to"):
        Store(tmp_path / "file").open()
    with pytest.raises(StoreError, match="choose a folder that you may write to"):
        Store(tmp_path / "file" / "below").open()


def test_a_folder_with_other_things_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "mine").write_text("of the user")
    (tmp_path / "notes.txt").write_text("of the user")
    before = sorted(tmp_path.rglob("*"))
    for act in (Store(tmp_path).open, Store(tmp_path).existing, Store(tmp_path / "missing").existing):
        with pytest.raises(BadInput, match=r"expected .*; pass --store"):
            act()
    assert sorted(tmp_path.rglob("*")) == before


def test_gc_and_purge_leave_what_no_store_wrote(store: Store) -> None:
    put(store)
    mine = [store.root / "tmp" / "mine", store.root / "ids" / "mine.json", store.root / "artifacts" / "a" / "b" / "c"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of the user")
    assert store.verify() == []
    assert store.gc() == 0
    assert len(store.purge(["a"])) == 1
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize("text", [None, "", "[]", '["a"]', '{"a": 1}'])
def test_verify_notices_a_lost_or_damaged_set_of_ids_and_gc_mends_it(store: Store, text: str | None) -> None:
    put(store, {"seed": 0})
    put(store, {"seed": 1})
    put(store, {"seed": 2}, ("c",))
    path = store.root / "ids" / f"{digest(['a', 'b'])}.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    assert {entry.spec["seed"] for entry in store.verify()} == {0, 1}
    assert store.gc() > 0
    assert store.verify() == []
    assert [entry.spec["seed"] for entry in store.entries()] == [2]


def test_a_redacting_store_clears_what_killed_runs_were_writing(store: Store) -> None:
    put(store)
    leftover = store.root / "tmp" / "999999999-abc"
    leftover.mkdir()
    Store(store.root).open()
    assert leftover.exists(), "looking changes nothing"
    Store(store.root, redact=True).open()
    assert not leftover.exists()


# purge


def test_what_cannot_be_deleted_is_not_called_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **named: None)
    with pytest.raises(StoreError, match="cannot be deleted"):
        store.purge(["a"])
    monkeypatch.undo()
    put(store)

    def refused(*args: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(StoreError, match="Permission denied"):
        store.purge(["a"])


def test_purge_removes_exactly_the_artifacts_that_hold_the_ids(store: Store) -> None:
    put(store, {"seed": 0}, ("a", "b"))
    put(store, {"seed": 1}, ("a", "b"))  # the same id set, stored once
    put(store, {"seed": 2}, ("b", "c"))
    put(store, {"seed": 3}, ("c", "d"))
    put(store, {"seed": 4}, ())
    assert len(list((store.root / "ids").iterdir())) == 4
    removed = store.purge(["a", "not in the store"])
    assert {entry.spec["seed"] for entry in removed} == {0, 1}
    assert {entry.spec["seed"] for entry in store.entries()} == {2, 3, 4}
    assert {entry.spec["seed"] for entry in store.purge(["b", "d"])} == {2, 3}
    assert store.purge(["a", "b", "c", "d"]) == []
    text = "".join(path.read_text() for path in store.root.rglob("*.json"))
    assert not any(f'"{name}"' in text for name in "abcd")


def test_purge_of_nothing_is_bad_input(store: Store) -> None:
    with pytest.raises(BadInput, match="at least one record id"):
        store.purge([])


def test_what_may_hold_the_ids_is_purged_too(store: Store) -> None:
    """A damaged manifest or a lost set of ids must not hide a record; what is known to be free of it stays."""
    put(store, {"seed": 0}, ("a",))
    put(store, {"seed": 1}, ("b",))
    put(store, {"seed": 2}, ("c",))
    put(store, {"seed": 3}, ("d",))
    places = {entry.spec["seed"]: entry for entry in store.entries()}
    (places[0].path / "manifest.json").unlink()
    (store.root / "ids" / f"{places[1].holds}.json").unlink()
    (store.root / "ids" / f"{places[2].holds}.json").write_text('["z"]')
    for seed in (1, 2):
        with pytest.raises(StoreError, match="the ids that an artifact holds"):
            store.held(places[seed].holds)
    assert {entry.key for entry in store.purge(["a"])} == {places[seed].key for seed in (0, 1, 2)}
    assert [entry.spec["seed"] for entry in store.entries()] == [3]


def test_a_damaged_set_of_ids_is_mended_by_the_next_put(store: Store) -> None:
    put(store)
    (path,) = (store.root / "ids").iterdir()
    path.write_text("[")
    put(store, {"seed": 1})
    assert store.held(path.stem) == ["a", "b"]


def test_purge_reaches_the_leftovers_of_a_killed_run(store: Store) -> None:
    put(store)
    leftover = store.root / "tmp" / "999999999-abc"
    leftover.mkdir()
    (leftover / "tensors.safetensors").write_bytes(b"weights of a")
    store.purge(["a"])
    assert not leftover.exists()


def test_gc_frees_what_nothing_uses_and_nothing_else(store: Store) -> None:
    put(store, {"seed": 0}, ("a",))
    put(store, {"seed": 1}, ("b",))
    store.drop("model", {"seed": 1})  # its id set is left
    killed = store.root / "tmp" / "999999999-killed"
    killed.mkdir()
    (killed / "part").write_bytes(b"x" * 100)
    alive = store.root / "tmp" / f"{os.getppid()}-alive"
    alive.mkdir()
    (store.root / "ids" / ".x.json.999999999-killed").write_text("half")
    busy = store.root / "ids" / f".y.json.{os.getppid()}-alive"
    busy.touch()
    put(store, {"seed": 2}, ("c",))
    damaged = next(entry for entry in store.entries() if entry.spec["seed"] == 2)
    (damaged.path / "tensors.safetensors").write_bytes(b"")
    assert store.gc() > 100
    assert [entry.spec["seed"] for entry in store.entries()] == [0]
    assert list((store.root / "tmp").iterdir()) == [alive]
    assert len(list((store.root / "ids").iterdir())) == 2
    assert busy.exists()
    assert store.held(next(store.entries()).holds) == ["a"]
    assert store.gc() == 0
