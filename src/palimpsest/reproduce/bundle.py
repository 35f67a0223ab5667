"""A study's result as a bundle: all that its tables can be recomputed from without training, and a hash of each file."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from palimpsest.disk import disk_errors, write_atomically
from palimpsest.errors import BadInput
from palimpsest.reproduce.result import FILE, PARTS, read

MANIFEST = "manifest.json"


def export(folder: Path, to: Path) -> list[Path]:
    """Copies result, records and scores of the study in `folder` to `to`, with a manifest; weights and images stay behind.

    Scores hold ids of records and what models answered on them, no contents. Raises BadInput where `to` holds something already.
    """
    told = read(folder).told
    check_target(to)
    wanted = [Path(FILE)]
    for place in told.parts.values():
        part = folder / PARTS / place
        wanted += [Path(PARTS, place, "record.json")]
        wanted += [path.relative_to(folder) for path in sorted((part / "scores").glob("*.safetensors"))]
    hashes = {}
    with disk_errors(to):
        for name in wanted:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, to / name)
            hashes[name.as_posix()] = _hash(to / name)
        write_atomically(to / MANIFEST, json.dumps(hashes, indent=1).encode())
    return [to / name for name in wanted]


def check_target(to: Path) -> None:
    """Raises BadInput where a bundle cannot go to this folder."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise BadInput("--export", got=f"{to}, which is not empty", expected="a new folder", do="choose another")


def verify(folder: Path) -> None:
    """Raises BadInput where a file of a bundle is gone or changed. A folder without a manifest is no bundle and passes."""
    path = folder / MANIFEST
    if not path.exists():
        return
    try:
        hashes = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(str(path), got=error, expected="the manifest of a bundle") from None
    for name, wanted in hashes.items():
        file = folder / name
        if not file.is_file():
            raise BadInput(str(file), got="nothing", expected="a file that the manifest names", do="copy it again")
        if _hash(file) != wanted:
            raise BadInput(str(file), got="another content", expected="what the manifest has", do="copy it again")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
