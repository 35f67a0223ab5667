"""What every data set of the catalog must pass, however its records come."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palimpsest import catalog
from palimpsest.data.base import Dataset
from palimpsest.types import Split

MEMBERS = catalog.members("data")


def small_csv(place: Path) -> str:
    rows = [f"{row % 7},{row * 0.5},{'red' if row % 3 else 'blue'},{'yes' if row % 2 else 'no'}" for row in range(300)]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("count,weight,colour,label\n" + "\n".join(rows) + "\n")
    return str(place)


SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "hub": lambda folder: {"path": str(Path(small_csv(folder / "small" / "train.csv")).parent)},
    "table": lambda folder: {"path": small_csv(folder / "small.csv")},
}
"""Settings of the members that do not bring their own records: a small source is made for each."""


@pytest.fixture(params=sorted(MEMBERS))
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Each member in turn, with no network and a cache of its own."""

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the network is blocked in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    made: Dataset = catalog.make("data", request.param, SOURCES.get(request.param, lambda folder: {})(tmp_path))
    return made


def parts(split: Split) -> tuple[Any, ...]:
    return split.train, split.validation, split.test


def test_the_same_split_every_time(data: Dataset) -> None:
    one, other = data.load(), data.load()
    assert one.fingerprint == other.fingerprint
    for mine, theirs in zip(parts(one), parts(other), strict=True):
        assert mine.ids.tolist() == theirs.ids.tolist()
        assert torch.equal(mine.targets, theirs.targets)


def test_every_record_is_in_one_part_under_one_name(data: Dataset) -> None:
    ids = np.concatenate([part.ids for part in parts(data.load())]).tolist()
    assert len(set(ids)) == len(ids)
    for name in ids:
        assert name
        assert name == name.strip()
        assert "\n" not in name


def test_shapes_types_and_domain(data: Dataset) -> None:
    split = data.load()
    low, high = split.domain
    assert len(split.classes) >= 2
    for part in parts(split):
        assert len(part)
        assert part.targets.dtype == torch.int64
        assert 0 <= int(part.targets.min()) <= int(part.targets.max()) < len(split.classes)
        for name, base in part.inputs.items():
            assert base.dtype == {"image": torch.uint8, "tokens": torch.int32}.get(split.kind, torch.float32)
            assert base.shape[1:] == split.shape
            values = part.batch().inputs[name]
            assert values.shape == (len(part), *split.shape)
            assert bool((values >= low).all())
            assert bool((values <= high).all())


def test_a_limit_keeps_records_in_their_parts(data: Dataset) -> None:
    whole, few = data.load(), dataclasses.replace(data, limit=60).load()
    assert len(few.train) + len(few.validation) <= 60
    assert len(few.test) <= 60
    assert few.fingerprint != whole.fingerprint
    for part, of in zip(parts(few), parts(whole), strict=True):
        same = of.only(part.ids.tolist())
        assert same.ids.tolist() == part.ids.tolist()
        assert torch.equal(same.batch().targets, part.batch().targets)


def test_no_id_tells_where_the_data_lie(data: Dataset, tmp_path: Path) -> None:
    split = data.load()
    assert not any(str(tmp_path) in name or name.startswith("/") for name in [split.name, *split.train.ids.tolist()])


def test_settings_are_documented_and_json_ready(data: Dataset) -> None:
    assert data.about
    assert all(entry["doc"] for entry in catalog.document(type(data)))
    json.dumps(catalog.identity(data))
