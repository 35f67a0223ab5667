"""Decoded data on disk, mapped through Arrow instead of read: for data sets larger than the memory limit.

A map is a folder `<cache>/maps/<key>/` with `inputs.bin`, the raw values row after row, and `manifest.json`, which says how
to read them and names every record they hold: `purge_maps` goes by it. The folder appears by one rename, so a process
killed at any moment leaves a whole map or none. What is only needed while data are being read lives under `<cache>/tmp`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from palimpsest.disk import disk_errors, gone, mark, write_atomically
from palimpsest.errors import BadInput
from palimpsest.types import Array, Split

FORMAT = 1
VALUES, MANIFEST = "inputs.bin", "manifest.json"
_KEY = re.compile(r"^[0-9a-f]{64}$")
_SCRATCH = re.compile(r"^\d+-([0-9a-f]{8}-)?[0-9a-f]{32}$")


def cache_folder(given: str = "") -> Path:
    """The cache: the folder given, else PALIMPSEST_CACHE, else ~/.cache/palimpsest."""
    return Path(given or os.environ.get("PALIMPSEST_CACHE") or "~/.cache/palimpsest").expanduser()


def check_cache(cache: Path) -> None:
    """Refuses a folder that never was a cache, before somebody takes it for an emptied one."""
    if not (cache / "maps").is_dir():
        got = "a folder without memory maps" if cache.is_dir() else "no such folder"
        raise BadInput(str(cache), got=got, expected="a cache of memory maps", do="pass --cache DIR")


class Scratch:
    """Folders of one reading, made when first asked for and removed at the end, whatever happens in between."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._folder: Path | None = None

    def folder(self, name: str) -> Path:
        with disk_errors(self.cache):
            if self._folder is None:
                sweep(self.cache)
                self._folder = self.cache / "tmp" / mark()
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        return self._folder / name

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def sweep(cache: Path) -> None:
    """Removes what killed processes left behind."""
    for left in (cache / "tmp").glob("*-*"):
        if _SCRATCH.match(left.name) and gone(left):
            shutil.rmtree(left, ignore_errors=True)


def write_values(folder: Path, parts: Iterable[Array]) -> Path:
    """Writes arrays of rows one after the other, each on the disk before the next is decoded."""
    path = folder / VALUES
    with disk_errors(folder), path.open("wb") as file:
        for part in parts:
            file.write(np.ascontiguousarray(part).data)
        file.flush()
        os.fsync(file.fileno())
    return path


def mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of `shape` (first axis the record) over the file's own pages; nothing is copied.

    Read only: the operating system kills a process that writes to it. `Examples` hands out copies of rows, never the base.
    """
    size = prod(shape) * dtype.itemsize
    with disk_errors(path), pa.memory_map(str(path), "r") as file:
        buffer = file.read_buffer()
    if buffer.size != size:
        raise BadInput(str(path), got=f"{buffer.size} bytes", expected=f"{size} bytes", do="delete it")
    kind = {torch.uint8: pa.uint8(), torch.int32: pa.int32(), torch.float32: pa.float32()}[dtype]
    flat = pa.Array.from_buffers(kind, prod(shape), [None, buffer])
    # DLPack, because torch.from_numpy warns of every array that cannot be written to.
    return torch.utils.dlpack.from_dlpack(flat).view(shape)


def keep(folder: Path, cache: Path, key: str, manifest: Mapping[str, Any]) -> Path:
    """Makes the map in `folder` (its values written) the one of this key; `manifest` must list its records under "ids"."""
    place = cache / "maps" / key
    with disk_errors(cache):
        write_atomically(folder / MANIFEST, json.dumps({"format": FORMAT, **manifest}).encode())
        place.parent.mkdir(parents=True, exist_ok=True)
        remove(cache, place)
        try:
            os.rename(folder, place)
        except OSError:
            if not place.exists():  # else another process made the same map meanwhile
                raise
    return place


def find(cache: Path, key: str) -> tuple[Path, dict[str, Any]] | None:
    """The map of this key and its manifest; None where there is none, or none that this version can read."""
    place = cache / "maps" / key
    manifest = _manifest(place)
    return None if manifest is None else (place, manifest)


def _manifest(place: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((place / MANIFEST).read_text())
        return manifest if manifest["format"] == FORMAT and (place / VALUES).exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def maps(cache: Path) -> Iterator[Path]:
    """The folders of all maps; other things in that place are nobody's map."""
    yield from sorted(place for place in (cache / "maps").glob("*") if place.is_dir() and _KEY.match(place.name))


def holding(cache: Path, ids: Iterable[str]) -> Iterator[tuple[Path, set[str] | None]]:
    """Every map with those of these records that it holds; None where its manifest cannot be read."""
    wanted = set(ids)
    for place in maps(cache):
        held = (_manifest(place) or {}).get("ids")
        yield place, wanted.intersection(held) if isinstance(held, list) else None


def maps_holding(cache: Path, ids: Iterable[str]) -> list[Path]:
    """The maps that hold one of these records. One whose manifest cannot be read counts: it must not hide a record."""
    return [place for place, mine in holding(cache, ids) if mine is None or mine]


def unkeep(cache: Path, fingerprint: str) -> list[Path]:
    """Removes the maps of these data. A split that is mapped over one still has its records: the system keeps the file's
    pages, though no longer its name, as long as the process lives."""
    doomed = [place for place in maps(cache) if (_manifest(place) or {}).get("fingerprint", fingerprint) == fingerprint]
    for place in doomed:
        remove(cache, place)
    return doomed


def unkept(data: Any, split: Split) -> Split:
    """The data, without the memory map that reading them may have left (or found): they stay readable in this process."""
    unkeep(cache_folder(getattr(data, "cache", "")), split.fingerprint)
    return split


def purge_maps(cache: Path, ids: Iterable[str]) -> list[Path]:
    """Removes the maps that hold one of these records, and what killed processes left; says which maps those were.

    The source itself is not touched, nor what `datasets` downloaded from the hub into its own cache.
    """
    doomed = maps_holding(cache, ids)
    for place in doomed:
        remove(cache, place)
    sweep(cache)
    return doomed


def remove(cache: Path, place: Path) -> None:
    """Out of sight by one rename first, so that a kill in between leaves no half map."""
    if not place.exists():
        return
    gone = cache / "tmp" / mark()
    with disk_errors(cache):
        gone.parent.mkdir(parents=True, exist_ok=True)
        os.rename(place, gone)
    shutil.rmtree(gone, ignore_errors=True)
