"""Attacked images for the report's grid, kept beside the record in `panels.safetensors` (absent where contents are redacted)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from palimpsest.disk import disk_errors, write_atomically
from palimpsest.errors import BadInput
from palimpsest.types import Array

FILE = "panels.safetensors"
ARRAYS = ("original", "attacked", "label", "before", "after")
DRAWN = ("images", "label")
RECOVERED = ("images", "label", "rank")
HANDED_IN = ("images", "label", "given")


@dataclass(frozen=True)
class Panel:
    """Some records before and after an attack on one model of one seed.

    unlearner: the method's label, empty for controls shared by all. target: what the model stands for. classes: names of all
    classes. original, attacked: images in [0, 1], shape (n, channels, height, width). label: true class; before, after: the
    class that the model answers with on the original and on the attacked image; each of shape (n,). ids: of the records, by
    which a purge finds them; where none are given it takes the panel for one of theirs.
    """

    unlearner: str
    target: str
    seed: int
    epsilon: float
    classes: tuple[str, ...]
    original: Array
    attacked: Array
    label: Array
    before: Array
    after: Array
    request: int = 0
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.original.ndim != 4 or self.original.shape != self.attacked.shape:
            got = f"{self.original.shape} and {self.attacked.shape}"
            raise BadInput("panel images", got=got, expected="two arrays of equal shape (n, channels, height, width)")
        for name in ARRAYS[2:]:
            values = getattr(self, name)
            if values.shape != self.original.shape[:1] or not all(0 <= v < len(self.classes) for v in values):
                expected = f"{len(self.original)} classes from 0 to {len(self.classes) - 1}"
                raise BadInput(f"panel {name}", got=values, expected=expected)

        if len(self.ids) not in (0, len(self.original)):
            raise BadInput("panel ids", got=len(self.ids), expected=f"{len(self.original)}, one per image")

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Strip:
    """Some records as models of images drew them, before and after unlearning and an attack, of one model of one seed.

    images: in [0, 1], shape (n, 4 + number of ε, channels, height, width): the record, what is seen of it, the original's and the
    unlearned model's answer, and the latter's to the attacked record, for each ε. retained: how many of the records, the last,
    were retained; the others were forgotten. The rest is as in `Panel`.
    """

    unlearner: str
    target: str
    seed: int
    epsilon: tuple[float, ...]
    classes: tuple[str, ...]
    images: Array
    label: Array
    retained: int = 0
    request: int = 0
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 5 or self.images.shape[1] != 4 + len(self.epsilon):
            expected = f"(n, {4 + len(self.epsilon)}, channels, height, width)"
            raise BadInput("strip images", got=f"shape {self.images.shape}", expected=expected)
        if self.label.shape != self.images.shape[:1] or not all(0 <= v < len(self.classes) for v in self.label):
            expected = f"{len(self.images)} classes from 0 to {len(self.classes) - 1}"
            raise BadInput("strip label", got=self.label, expected=expected)
        if not 0 <= self.retained <= len(self.images):
            raise BadInput("strip retained", got=self.retained, expected=f"0 to {len(self.images)}")
        if len(self.ids) not in (0, len(self.images)):
            raise BadInput("strip ids", got=len(self.ids), expected=f"{len(self.images)}, one per record")

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Recovery:
    """Deleted records and what an attack made of them that never saw them, of one model of one seed.

    images: in [0, 1], shape (n, 2, channels, height, width): the record and what was recovered. rank: the record's normalised rank
    among unseen ones, shape (n,). The rest is as in `Panel`.
    """

    unlearner: str
    target: str
    seed: int
    attack: str
    classes: tuple[str, ...]
    images: Array
    label: Array
    rank: Array
    request: int = 0
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 5 or self.images.shape[1] != 2:
            raise BadInput(
                "recovered images", got=f"shape {self.images.shape}", expected="(n, 2, channels, height, width)"
            )
        if not len(self.images) == len(self.label) == len(self.rank) == (len(self.ids) or len(self.rank)):
            got = f"{len(self.images)} images, {len(self.label)} labels, {len(self.rank)} ranks, {len(self.ids)} ids"
            raise BadInput("recovered images", got=got, expected="as many of each")

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class HandedIn:
    """Records as they were and as an adversary handed them in for training, of one seed.

    images: in [0, 1], shape (n, 2, channels, height, width). label: true class; given: the one that they were handed in under; each
    of shape (n,). by: the attack. The rest is as in `Panel`; no model made them, and unlearner is empty.
    """

    seed: int
    by: str
    classes: tuple[str, ...]
    images: Array
    label: Array
    given: Array
    ids: tuple[str, ...] = ()
    unlearner: str = ""
    target: str = "original"
    request: int = 0

    def __post_init__(self) -> None:
        if self.images.ndim != 5 or self.images.shape[1] != 2:
            got = f"shape {self.images.shape}"
            raise BadInput("images handed in", got=got, expected="(n, 2, channels, height, width)")
        if not len(self.images) == len(self.label) == len(self.given) == (len(self.ids) or len(self.given)):
            got = f"{len(self.images)} images, {len(self.label)} and {len(self.given)} labels, {len(self.ids)} ids"
            raise BadInput("images handed in", got=got, expected="as many of each")

    def __len__(self) -> int:
        return len(self.label)


Shown = Panel | Strip | Recovery | HandedIn


def save(folder: Path, panels: Sequence[Shown]) -> Path:
    """Writes the panels' file, whole or not at all; no panels remove it."""
    path = folder / FILE
    arrays = {f"{place}/{name}": _stored(panel, name) for place, panel in enumerate(panels) for name in _arrays(panel)}
    heads = [_head(panel) for panel in panels]
    with disk_errors(folder):
        if panels:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, safetensors.numpy.save(arrays, metadata={"panels": json.dumps(heads)}))
        else:
            path.unlink(missing_ok=True)
    return path


def load(folder: Path) -> list[Shown]:
    """The panels in a folder, in the order in which they were saved; empty where there are none."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        heads = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["panels"])
        arrays = safetensors.numpy.load(data)
        panels: list[Shown] = []
        for place, head in enumerate(heads):
            recovered, drawn, given = "attack" in head, isinstance(head.get("epsilon"), list), "by" in head
            names = RECOVERED if recovered else DRAWN if drawn else HANDED_IN if given else ARRAYS
            values: dict[str, Any] = {name: arrays[f"{place}/{name}"] for name in names}
            named = {"classes": tuple(head["classes"]), "ids": tuple(head.get("ids", ()))}
            if recovered:
                panels.append(Recovery(**{**head, **named, **values}))
            elif given:
                panels.append(HandedIn(**{**head, **named, **values}))
            elif drawn:
                panels.append(Strip(**{**head, **named, **values, "epsilon": tuple(head["epsilon"])}))
            else:
                panels.append(Panel(**{**head, **named, **values}))
        return panels
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            str(path), got=error, expected="images that an audit wrote", do="delete the file or audit again"
        ) from None


def purge(folder: Path, ids: Iterable[str]) -> int:
    """Removes the panels that show one of these records, and says how many. Those that cannot be read may show them."""
    wanted, path = set(ids), folder / FILE
    try:
        panels = load(folder)
    except BadInput:
        with disk_errors(folder):
            path.unlink(missing_ok=True)
        return 1
    kept = [panel for panel in panels if panel.ids and wanted.isdisjoint(panel.ids)]
    if len(kept) < len(panels):
        save(folder, kept)
    return len(panels) - len(kept)


def _arrays(panel: Shown) -> tuple[str, ...]:
    for kind, names in ((Strip, DRAWN), (Recovery, RECOVERED), (HandedIn, HANDED_IN)):
        if isinstance(panel, kind):
            return names
    return ARRAYS


def _stored(panel: Shown, name: str) -> Array:
    kind = np.float32 if name in ("original", "attacked", "images", "rank") else np.int64
    return np.ascontiguousarray(getattr(panel, name), dtype=kind)


def _head(panel: Shown) -> dict[str, object]:
    if isinstance(panel, Recovery):
        own: dict[str, object] = {"attack": panel.attack}
    elif isinstance(panel, HandedIn):
        own = {"by": panel.by}
    else:
        own = {"epsilon": list(panel.epsilon) if isinstance(panel, Strip) else panel.epsilon}
        own |= {"retained": panel.retained} if isinstance(panel, Strip) else {}
    return {
        "unlearner": panel.unlearner,
        "target": panel.target,
        "seed": panel.seed,
        **own,
        "classes": list(panel.classes),
        "request": panel.request,
        "ids": list(panel.ids),
    }
