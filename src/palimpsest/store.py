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
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from palimpsest.errors import BadInput, CorruptArtifact, NewerFormat, StoreError
from palimpsest.types import Ids

FORMAT = 1


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


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """A full disk or a forbidden folder becomes one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            got, do = (
                "no space left on the disk",
                "free some space or choose another folder, then run the same command again",
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            got, do = error.strerror or "a refusal", "choose a folder that you may write to"
        else:
            raise
        raise StoreError(f"{where}: got {got}, expected a folder with room to write; {do}") from error


@dataclass(frozen=True)
class Store:
    """A folder of artifacts. `redact` keeps the contents of records (attacked inputs, decoded data) out of it."""

    root: Path
    redact: bool = False
    _checked: list[bool] = field(default_factory=list, repr=False, compare=False)

    def open(self) -> None:
        """Creates the folder, or refuses one that a newer format wrote."""
        if self._checked:
            return
        with disk_errors(self.root):
            for name in ("artifacts", "ids", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            marker = self.root / "FORMAT"
            if not marker.exists():
                self._write_file(marker, json.dumps({"format": FORMAT}).encode())
        try:
            found = json.loads(marker.read_text())["format"]
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{marker}: got an unreadable file, expected {{'format': {FORMAT}}}; is this a store?"
            ) from None
        if found > FORMAT:
            raise NewerFormat(
                f"store {self.root}: got format {found}, expected at most {FORMAT}; update palimpsest-ml or pass another --store"
            )
        self._checked.append(True)

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
        if not place.exists():
            return None
        try:
            manifest = json.loads((place / "manifest.json").read_text())
            data = (place / "tensors.safetensors").read_bytes()
        except (OSError, ValueError) as error:
            raise CorruptArtifact(f"{place}: got {error}, expected a manifest and its tensors") from error
        if manifest.get("sha256") != hashlib.sha256(data).hexdigest():
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
        """Writes an artifact. `holds`: ids of the records that can be learnt of from it (trained on, attacked, scored)."""
        self.open()
        key = self.key(kind, spec)
        place = self._folder(kind, key)
        flat = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        data = safetensors.torch.save(flat)
        scratch = self.root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
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
                scratch.mkdir(parents=True)
                self._write_file(scratch / "tensors.safetensors", data)
                self._write_file(scratch / "manifest.json", json.dumps(manifest, indent=1, default=_refuse).encode())
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.exists():
                    self._remove(place)
                with suppress(FileExistsError):  # another process made the same artifact meanwhile
                    os.rename(scratch, place)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return Artifact(kind, key, flat, json.loads(json.dumps(info, default=_refuse)))

    def drop(self, kind: str, spec: Mapping[str, Any]) -> None:
        self._remove(self._folder(kind, self.key(kind, spec)))

    def entries(self) -> Iterator[Entry]:
        """Every artifact, in no promised order; a manifest that cannot be read shows as kind and key alone."""
        self.open()
        for manifest_path in sorted((self.root / "artifacts").glob("*/*/*/manifest.json")):
            place = manifest_path.parent
            size = sum(part.stat().st_size for part in place.iterdir())
            try:
                manifest = json.loads(manifest_path.read_text())
            except ValueError:
                manifest = {}
            kind = place.parent.parent.name
            yield Entry(kind, place.name, place, size, manifest.get("spec", {}), manifest.get("holds", ""))

    def verify(self) -> list[Entry]:
        """The artifacts whose bytes are damaged."""
        return [entry for entry in self.entries() if not self._sound(entry)]

    def _sound(self, entry: Entry) -> bool:
        try:
            return self.read(entry.kind, entry.key) is not None
        except CorruptArtifact:
            return False

    def gc(self) -> int:
        """Removes what nothing uses: leftovers of killed runs, damaged artifacts, id sets without artifact. Bytes freed."""
        self.open()
        freed = 0
        for entry in self.verify():
            freed += entry.bytes
            self._remove(entry.path)
        for scratch in (self.root / "tmp").iterdir():
            owner = scratch.name.split("-")[0]
            if not (owner.isdigit() and Path(f"/proc/{owner}").exists() and int(owner) != os.getpid()):
                freed += sum(part.stat().st_size for part in scratch.rglob("*") if part.is_file())
                shutil.rmtree(scratch, ignore_errors=True)
        used = {entry.holds for entry in self.entries()}
        for held in (self.root / "ids").iterdir():
            if held.stem not in used:
                freed += held.stat().st_size
                held.unlink()
        return freed

    def purge(self, ids: Iterable[str]) -> list[Entry]:
        """Removes every artifact that still holds one of these records, and says which those were."""
        wanted = set(ids)
        if not wanted:
            raise BadInput("purge", got="no ids", expected="at least one record id", do="one id per line in the file")
        hits: dict[str, bool] = {}
        removed = []
        for entry in list(self.entries()):
            if entry.holds not in hits:
                hits[entry.holds] = not wanted.isdisjoint(self.held(entry.holds))
            if hits[entry.holds]:
                self._remove(entry.path)
                removed.append(entry)
        self.gc()
        return removed

    def held(self, key: str) -> list[str]:
        """The ids in an id set. A missing set counts as unknown: a damaged store must not hide a record."""
        path = self.root / "ids" / f"{key}.json"
        if not path.exists():
            raise StoreError(
                f"{path}: got no file, expected the ids that an artifact holds; delete the store and run again"
            )
        ids: list[str] = json.loads(path.read_text())
        return ids

    def _write_ids(self, holds: Iterable[str]) -> str:
        names = sorted({str(name) for name in holds})
        key = digest(names)
        path = self.root / "ids" / f"{key}.json"
        if not path.exists():
            self._write_file(path, json.dumps(names).encode())
        return key

    def _folder(self, kind: str, key: str) -> Path:
        return self.root / "artifacts" / kind / key[:2] / key

    def _remove(self, place: Path) -> None:
        """Out of sight by one rename first, so that a kill in between leaves no half artifact."""
        if not place.exists():
            return
        doomed = self.root / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
        doomed.parent.mkdir(parents=True, exist_ok=True)
        os.rename(place, doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    @staticmethod
    def _write_file(path: Path, data: bytes) -> None:
        write_atomically(path, data)


def write_atomically(path: Path, data: bytes) -> None:
    """The file holds either its old bytes or all of the new ones, whenever the process dies."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def scores_holds(*parts: Ids) -> Iterator[str]:
    """Ids of several sets, for `holds`."""
    for part in parts:
        yield from (str(name) for name in part)
