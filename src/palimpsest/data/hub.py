"""Anything that `datasets` opens: a name on the Hugging Face hub, or a local folder of data files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palimpsest.catalog import setting
from palimpsest.data._columnar import Columnar, stamp_of
from palimpsest.data._columns import Source, checked
from palimpsest.data._connection import reach
from palimpsest.data.memory_map import Scratch
from palimpsest.errors import BadInput

_PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Hub(Columnar):
    """A folder (of Parquet, CSV, JSON or Arrow files, or of images in a folder per class) or a hub name.

    - Parts. `train`, `validation` and `test` are taken as the source brings them. A source with one split is parted. One
      with a validation set and no labelled test set lends the former as test set.
    - Label. The column of class type, else the one named label, labels, target, y, class or fine_label.
    - Inputs. An image column: uint8, shape (n, channels, height, width), grey if all are grey, else RGB. One text column
      alone: hashed bags of words, float32, shape (n, text_features), which forget word order. Else features, float32, shape
      (n, features): numbers, truth values and number lists as they are, other text columns one-hot. Nameless and id-like
      columns that only number the rows are left out. Name `input` where that is not what is meant.
    - Record ids. The `id` column, else `<folder or hub name>/<split>/<row>`: then rows must keep their places for ids to
      keep their meaning.

    A local folder leaves no copy behind, except as a memory map (see `memory_limit`); a hub name is downloaded into the
    cache of `datasets`, which `purge` does not touch.
    """

    about = "a hub name or a local folder that `datasets` opens: images, features or text"

    config: str = setting("", "configuration, where the source has several", source="the user")

    def stamp(self) -> Any:
        folder = self._folder()
        if folder is None:
            return None
        files = dict(_visible(folder))
        if not files:
            raise BadInput(self.path, got="an empty folder", expected="data files that `datasets` can read")
        return [folder.name, stamp_of(files)]

    def open(self, scratch: Scratch) -> Source:
        import datasets  # here, because it takes half a second

        folder = self._folder()
        if folder is None and not datasets.config.HF_HUB_OFFLINE:
            reach(datasets.config.HF_ENDPOINT, f"hub:{self.path}")
        name = self.path if folder is None else folder.name
        try:
            with _quiet(datasets):
                if folder and ((folder / "dataset_dict.json").exists() or (folder / "state.json").exists()):
                    opened = datasets.load_from_disk(str(folder))
                else:
                    cache = None if folder is None else str(scratch.folder("source"))
                    where = self.path if folder is None else str(folder)
                    opened = datasets.load_dataset(where, self.config or None, cache_dir=cache)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise self._unreadable(error, folder is None) from error
        splits = {"train": opened} if isinstance(opened, datasets.Dataset) else dict(opened)
        chosen = _parts(name, list(splits))
        sets = {part: splits[split] for part, split in chosen.items()}
        features = sets["train"].features
        declared = {c: tuple(f.names) for c, f in features.items() if isinstance(f, datasets.ClassLabel)}
        cached = {f"{part}/{i}": Path(f["filename"]) for part, d in sets.items() for i, f in enumerate(d.cache_files)}
        stamp = None if folder else [self.path, stamp_of(cached)]
        tables = {part: d.with_format("arrow")[:] for part, d in sets.items()}
        prefixes = {part: f"{name}/{split}" for part, split in chosen.items()}
        return checked(Source(name, tables, prefixes, declared, stamp))

    def _folder(self) -> Path | None:
        """The local folder; None where the path is a hub name."""
        place = Path(self.path).expanduser()
        if self.path and place.is_dir():
            return place.resolve()
        if place.is_file():
            do = "open a single CSV or Parquet file as a table"
            raise BadInput(self.path, got="a file", expected="a folder or a hub name", do=do)
        if not self.path or self.path[0] in "./~" or self.path.count("/") > 1:
            raise BadInput(self.path or "--data hub", got="no such folder", expected="a folder, or a hub name")
        return None

    def _unreadable(self, error: Exception, on_hub: bool) -> BadInput:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        if "config" in reason.lower():
            do = "name one of its configurations with --set hub.config=NAME"
        elif on_hub:
            do = "check the name, and whether it needs a login"
        else:
            do = "check its files"
        what = f"hub:{self.path}" if on_hub else self.path
        return BadInput(what, got=reason, expected="data that `datasets` can open", do=do)


def _parts(name: str, splits: list[str]) -> dict[str, str]:
    """Part → the split that is it. A lone split is the training set, whatever its name."""
    if len(splits) == 1:
        return {"train": splits[0]}
    found = {}
    for part, names in _PART_NAMES.items():
        matching = [split for split in splits if split.lower() in names]
        if matching:
            found[part] = matching[0]
    if "train" not in found:
        raise BadInput(f"{name}: splits", got=", ".join(splits), expected="one named train")
    return found


def _visible(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files under the folder by their relative names; hidden ones, which `datasets` does not read either, are passed over."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                yield str(path.relative_to(folder)), path


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without the bars and notes of `datasets`; ours are shown instead."""
    notes, bars = datasets.utils.logging, datasets.utils
    level, shown = notes.get_verbosity(), bars.are_progress_bars_disabled()
    notes.set_verbosity(notes.CRITICAL)
    bars.disable_progress_bars()
    try:
        yield
    finally:
        notes.set_verbosity(level)
        if not shown:
            bars.enable_progress_bars()
