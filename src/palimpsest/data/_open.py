"""From what a user writes after `--data` to a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palimpsest import catalog
from palimpsest.data.base import Dataset
from palimpsest.errors import BadInput, UnknownName

FORMS = "a name of `palimpsest list data`, a folder, a .csv or .parquet file, hub:NAME or my_module:MyClass"


def open_data(text: str, settings: Mapping[str, Any] | None = None) -> Dataset:
    """The data set that `text` stands for, with these settings; nothing is read yet.

    `digits` → the catalog's member; `path/to/folder` → hub; `file.csv`, `file.parquet` → table; `hub:NAME` → a name on
    the hub; `my_module:MyClass` → the user's class. A folder with a member's name is written `./digits`.
    Raises UnknownName (with the nearest name) for other words, BadInput for a path that does not exist.
    """
    settings = dict(settings or {})
    if text in catalog.members("data"):
        return _made(text, settings)
    if text.startswith("hub:"):
        return _made("hub", {**settings, "path": text.removeprefix("hub:")})
    place = Path(text).expanduser()
    if text and place.is_dir():
        return _made("hub", {**settings, "path": text})
    if place.is_file():
        return _made("table", {**settings, "path": text})
    if ":" in text and os.sep not in text:
        return _made(text, settings)
    if os.sep in text or text.startswith((".", "~")) or place.suffix:
        hub_like = text.count("/") == 1 and text[0] not in "./~"
        do = f"check the path, or write hub:{text} if that is a name on the hub" if hub_like else "check the path"
        raise BadInput(f"--data {text}", got="no such file or folder", expected=FORMS, do=do)
    raise UnknownName("--data", got=text, known=catalog.members("data"), do=f"give {FORMS}")


def _made(name: str, settings: Mapping[str, Any]) -> Dataset:
    made: Dataset = catalog.make("data", name, settings)
    return made
