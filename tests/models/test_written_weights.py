"""Weights are written whole or not at all, and hashed by what they are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from palimpsest.errors import BadInput, StoreError
from palimpsest.models.files import hash_weights, read_weights, write_weights
from tests.models.nets import net, same


def test_written_weights_come_back_with_their_metadata(tmp_path: Path) -> None:
    model = net()
    model[2].weight = nn.Parameter(torch.randn(3, 2).T)  # not contiguous
    tied = nn.ModuleDict({"a": model, "b": model})
    path = tmp_path / "new" / "w.safetensors"
    write_weights(path, tied, {"unlearner": "salun"})
    assert same(read_weights(path), dict(tied.state_dict()))
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "written_by": "palimpsest-ml", "unlearner": "salun"}
    assert [found.name for found in path.parent.iterdir()] == ["w.safetensors"]


def test_a_full_disk_leaves_the_old_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, net())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left on the disk"):
        write_weights(path, net(1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["w.pt", "w", "folder.safetensors"])
def test_weights_are_written_as_safetensors_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(BadInput, match=r"expected a file name that ends in \.safetensors"):
        write_weights(tmp_path / name, net())


def test_the_hash_follows_names_types_shapes_and_values_only(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}
    first = hash_weights(state)
    assert len(first) == 64
    assert first == hash_weights(dict(reversed(state.items())))
    assert first == hash_weights(
        {"a": torch.arange(6.0).view(3, 2).T.contiguous().T.reshape(2, 3), "n": torch.tensor(3)}
    )
    others = [
        {"b": state["a"], "n": state["n"]},
        {"a": state["a"].view(3, 2), "n": state["n"]},
        {"a": state["a"].double(), "n": state["n"]},
        {"a": state["a"] + 1e-6, "n": state["n"]},
        {"a": state["a"], "n": torch.tensor(4)},
        {"a": state["a"]},
    ]
    assert len({first, *map(hash_weights, others)}) == 7
    torch.save(state, tmp_path / "w.pt")
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    assert hash_weights(read_weights(tmp_path / "w.pt")) == hash_weights(read_weights(tmp_path / "w.safetensors"))
