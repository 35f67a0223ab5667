"""Artifacts addressed by the hash of what made them: safetensors beside a JSON manifest, written atomically.

An artifact is a folder that appears by one rename, so a process killed at any moment leaves either the whole artifact or
none. Its manifest names the record ids that the artifact still holds (as a content-addressed id set), which is what
`purge` goes by.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from palimpsest.disk import abandoned, disk_errors, mark, write_atomically
from palimpsest.errors import BadInput, CorruptArtifact, NewerFormat, StoreError

FORMAT = 1
_KEY = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Artifact:
    kind: str
    key: str
    tensors: Mapping[str, Tensor]
    info: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One artifact as `ls` shows it, its tensors unread."""

    kind: str
    key: str
    path: Path
    bytes: int
    spec: Mapping[str, Any]
    holds: str


def digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value in canonical form, as 64 hexadecimal digits."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), default=_refuse).encode()
    ).hexdigest()


def _refuse(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}, expected a JSON value; convert it before it becomes part of a key")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What changes results besides settings: torch's version, the kind of device, the number of threads."""
    kind = torch.device(device).type
    return {
        "torch": torch.__version__,
        "device": kind if kind == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class Store:
    """A folder of artifacts. `redact` keeps the contents of records (attacked inputs, decoded data) out of it."""

    root: Path
    redact: bool = False
    _checked: list[bool] = field(default_factory=list, repr=False, compare=False)

    def open(self) -> None:
        """Creates the folder, or refuses one that holds other things or that a newer format wrote."""
        if self._checked:
            return
        parts, marker = ("artifacts", "ids", "tmp"), self.root / "FORMAT"
        with disk_errors(self.root):
            if not marker.exists():
                others = [path.name for path in self.root.iterdir()] if self.root.is_dir() else []
                others = sorted(name for name in others if name not in parts and not name.startswith("."))
                if others:
                    got = f"a folder with other things in it ({others[0]})"
                    raise BadInput(
                        str(self.root), got=got, expected="a store or an empty folder", do="pass --store DIR"
                    )
            for name in parts:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                self._write_file(marker, json.dumps({"format": FORMAT}).encode())
        try:
            found = int(json.loads(marker.read_text())["format"])
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{marker}: got an unreadable file, expected {{'format': {FORMAT}}}; is this a store?"
            ) from None
        if found > FORMAT:
            raise NewerFormat(
                f"store {self.root}: got format {found}, expected at most {FORMAT}; update palimpsest-ml or pass another --store"
            )
        self._checked.append(True)
        if self.redact:
            self._clear()  # what a killed run was writing may show records

    def existing(self) -> Store:
        """This store, if it is one: looking at a folder must not make it a store."""
        if not (self.root / "FORMAT").is_file():
            got = "a folder that is no store" if self.root.is_dir() else "no such folder"
            raise BadInput(str(self.root), got=got, expected="one that an audit made", do="pass --store DIR")
        self.open()
        return self

    def key(self, kind: str, spec: Mapping[str, Any]) -> str:
        return digest({"kind": kind, "spec": spec})

    def get(self, kind: str, spec: Mapping[str, Any]) -> Artifact | None:
        """The artifact made from `spec`; None where there is none, or where its bytes are damaged (it is then removed)."""
        self.open()
        key = self.key(kind, spec)
        try:
            return self.read(kind, key)
        except CorruptArtifact:
            self._remove(self._folder(kind, key))
            return None

    def read(self, kind: str, key: str) -> Artifact | None:
        """As `get`, by key; raises CorruptArtifact where the bytes do not have the manifest's hash."""
        place = self._folder(kind, key)
        try:
            manifest = json.loads((place / "manifest.json").read_text())
            data = (place / "tensors.safetensors").read_bytes()
        except (OSError, ValueError) as error:
            if not place.exists():  # never made, or removed by another process while it was read
                return None
            raise CorruptArtifact(f"{place}: got {error}, expected a manifest and its tensors") from error
        if not _sealed(manifest) or manifest["sha256"] != hashlib.sha256(data).hexdigest():
            raise CorruptArtifact(
                f"{place}: got other bytes than the manifest's hash names; the artifact will be made again"
            )
        return Artifact(kind, key, safetensors.torch.load(data), manifest["info"])

    def put(
        self,
        kind: str,
        spec: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        info: Mapping[str, Any],
        holds: Iterable[str],
    ) -> Artifact:
        """Writes an artifact. `holds`: ids of the records that can be learnt of from it (trained on, attacked, scored).

        Between the two renames of a replacement neither version is there: a kill in that instant costs the artifact,
        which is then made again.
        """
        self.open()
        key = self.key(kind, spec)
        place = self._folder(kind, key)
        flat = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        data = safetensors.torch.save(flat)
        scratch = self.root / "tmp" / mark()
        with disk_errors(self.root):
            try:
                manifest = {
                    "format": FORMAT,
                    "kind": kind,
                    "spec": spec,
                    "info": info,
                    "holds": self._write_ids(holds),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
                manifest = json.loads(json.dumps(manifest, default=_refuse))  # as it will be read
                manifest["seal"] = digest(manifest)
                scratch.mkdir(parents=True)
                self._write_file(scratch / "tensors.safetensors", data)
                self._write_file(scratch / "manifest.json", json.dumps(manifest, indent=1).encode())
                place.parent.mkdir(parents=True, exist_ok=True)
                doomed = self._aside(place)
                try:
                    os.rename(scratch, place)
                except OSError as error:  # another process made the same artifact meanwhile: theirs is as good
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                if doomed:
                    shutil.rmtree(doomed, ignore_errors=True)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return Artifact(kind, key, flat, manifest["info"])

    def drop(self, kind: str, spec: Mapping[str, Any]) -> bool:
        """Returns whether there was one."""
        return self._remove(self._folder(kind, self.key(kind, spec)))

    def entries(self) -> Iterator[Entry]:
        """Every artifact, in no promised order; a manifest that cannot be read shows as kind and key alone."""
        self.open()
        for place in sorted((self.root / "artifacts").glob("*/*/*")):
            if not _KEY.match(place.name):  # nothing that a store wrote
                continue
            try:
                size = sum(part.stat().st_size for part in place.iterdir())
                manifest = json.loads((place / "manifest.json").read_text())
            except (OSError, ValueError):
                if not place.exists():  # removed by another process
                    continue
                size, manifest = 0, None
            manifest = manifest if isinstance(manifest, dict) else {}
            kind = place.parent.parent.name
            yield Entry(kind, place.name, place, size, manifest.get("spec", {}), manifest.get("holds", ""))

    def verify(self) -> list[Entry]:
        """The artifacts whose bytes are damaged, or whose set of ids is, without which a purge is blind."""
        sets: dict[str, bool] = {}
        return [entry for entry in self.entries() if not self._sound(entry, sets)]

    def _sound(self, entry: Entry, sets: dict[str, bool]) -> bool:
        try:
            if self.read(entry.kind, entry.key) is None:  # removed by another process
                return True
        except CorruptArtifact:
            return False
        if entry.holds not in sets:
            sets[entry.holds] = self._held(entry.holds) is not None
        return sets[entry.holds]

    def gc(self) -> int:
        """Removes what nothing uses: leftovers of killed runs, damaged artifacts (which `verify` names), id sets without
        artifact. Bytes freed."""
        damaged = self.verify()
        for entry in damaged:
            self._remove(entry.path)
        return sum(entry.bytes for entry in damaged) + self._sweep()

    def _sweep(self) -> int:
        freed = self._clear()
        used = {entry.holds for entry in self.entries()}
        for held in (self.root / "ids").iterdir():
            ours = _KEY.match(held.stem) and held.stem not in used
            if abandoned(held) if held.name.startswith(".") else ours:
                freed += held.stat().st_size
                held.unlink()
        return freed

    def _clear(self) -> int:
        """Removes what killed processes were writing. Bytes freed."""
        freed = 0
        for scratch in filter(abandoned, (self.root / "tmp").iterdir()):
            freed += sum(part.stat().st_size for part in scratch.rglob("*") if part.is_file())
            shutil.rmtree(scratch, ignore_errors=True)
        return freed

    def holding(self, ids: Iterable[str]) -> Iterator[tuple[Entry, set[str] | None]]:
        """Every artifact with those of these records that it holds; None where that is lost with its manifest or id set."""
        wanted = set(ids)
        sets: dict[str, set[str] | None] = {}
        for entry in list(self.entries()):
            if entry.holds not in sets:
                found = self._held(entry.holds)
                sets[entry.holds] = None if found is None else wanted.intersection(found)
            yield entry, sets[entry.holds]

    def purge(self, ids: Iterable[str]) -> list[Entry]:
        """Removes every artifact that still holds one of these records, and says which those were.

        An artifact whose manifest or set of ids is lost or damaged may hold them: it goes too.
        """
        wanted = set(ids)
        if not wanted:
            raise BadInput("purge", got="no ids", expected="at least one record id", do="one id per line in the file")
        removed = [entry for entry, mine in self.holding(wanted) if mine is None or mine]
        for entry in removed:
            self._remove(entry.path)
        self._sweep()
        return removed

    def _held(self, key: str) -> list[str] | None:
        try:
            return self.held(key)
        except StoreError:
            return None

    def held(self, key: str) -> list[str]:
        """The ids in an id set. Raises StoreError where the set is lost or damaged: that must not hide a record."""
        path = self.root / "ids" / f"{key}.json"
        try:
            ids: list[str] = json.loads(path.read_text())
        except (OSError, ValueError):
            ids = []
        if digest(ids) != key:
            raise StoreError(
                f"{path}: got no such set or a damaged one, expected the ids that an artifact holds; delete the store and run again"
            )
        return ids

    def _write_ids(self, holds: Iterable[str]) -> str:
        names = sorted({str(name) for name in holds})
        key = digest(names)
        path = self.root / "ids" / f"{key}.json"
        text = json.dumps(names).encode()
        if not path.exists() or path.stat().st_size != len(text):
            self._write_file(path, text)
        return key

    def _folder(self, kind: str, key: str) -> Path:
        return self.root / "artifacts" / kind / key[:2] / key

    def _remove(self, place: Path) -> bool:
        """Out of sight by one rename first, so that a kill in between leaves no half artifact. Raises StoreError where it
        cannot be removed: a purge must not say that something is gone which is still there."""
        with disk_errors(self.root):
            doomed = self._aside(place)
        if doomed:
            shutil.rmtree(doomed, ignore_errors=True)
            if doomed.exists():
                raise StoreError(f"{doomed}: got a folder that cannot be deleted, expected it gone; delete it by hand")
        return doomed is not None

    def _aside(self, place: Path) -> Path | None:
        """Moves an artifact to the folder of leftovers; None where there is none, or another process was first."""
        doomed = self.root / "tmp" / mark()
        doomed.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(place, doomed)
        except FileNotFoundError:
            return None
        return doomed

    @staticmethod
    def _write_file(path: Path, data: bytes) -> None:
        write_atomically(path, data)


def _sealed(manifest: Any) -> bool:
    """Whether a manifest is as it was written; those written before there were seals are taken as they are."""
    if not isinstance(manifest, dict) or not {"sha256", "info", "holds"} <= manifest.keys():
        return False
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    return "seal" not in manifest or manifest["seal"] == digest(rest)
