"""What the hub and the table data sets share: from open tables to a split, in memory or in a memory map."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from palimpsest import catalog
from palimpsest.catalog import setting
from palimpsest.data import _columns as columns
from palimpsest.data import _inputs as inputs
from palimpsest.data import memory_map
from palimpsest.data._columns import Source
from palimpsest.data._inputs import Picks, Reader
from palimpsest.data._tokens import TokenReader, context, known, opened
from palimpsest.data.base import Dataset
from palimpsest.data.memory_map import Scratch
from palimpsest.errors import BadInput
from palimpsest.progress import track
from palimpsest.store import digest
from palimpsest.types import Array, Examples, Ids, Split


@dataclass(frozen=True)
class Columnar(Dataset):
    """Base of data sets that come as columns. A subclass opens the source; what its columns mean is found out here.

    Which records are read is decided by their ids before any is decoded, so a low limit is cheap.
    """

    path: str = setting(dataclasses.MISSING, "where the data are", source="the user")
    label: str = setting("", "label column; empty: found by its type or by its name", source="ours")
    input: str = setting("", "column or columns to learn from, with commas; empty: found by their types", source="ours")
    id: str = setting("", "column of record ids; empty: they are named after their rows", source="ours")
    owner: str = setting("", "column that says whose record it is; empty: nobody's", source="ours")
    size: int | None = setting(
        None,
        "side in pixels to which images are resized (bilinear); none: they must all have one size",
        source="ours",
        least=1,
    )
    categories: int = setting(64, "most different texts in a column that is read as categories", source="ours", least=1)
    text_features: int = setting(1024, "length of the hashed bag of words that text becomes", source="ours", least=1)
    tokens: int = setting(
        0, "tokens of a text that a language model reads; 0: text becomes a bag of words", source="ours", least=0
    )
    tokenizer: str = setting(
        "",
        "a folder with a tokenizer.json, or a hub name; empty: a byte-level BPE of the validation texts",
        source="ours",
    )
    vocabulary: int = setting(8192, "tokens of that BPE", source="ours; 50,257 in GPT-2", least=300)
    keep: Literal["start", "end"] = setting("start", "of a text that is too long", source="ours")
    prompt: str = setting("\nSentiment:", "what a model is asked after each text", source="ours")
    answers: str = setting("", "a word for each class, with commas; empty: the classes' names", source="ours")
    memory_limit: int = setting(
        4096, "MiB of decoded inputs above which they are read from a memory map on the disk", source="ours", least=0
    )
    cache: str = setting("", "folder of the memory maps; empty: PALIMPSEST_CACHE or ~/.cache/palimpsest", source="ours")

    @abstractmethod
    def stamp(self) -> Any:
        """What the source is known by before it is read, JSON-ready; None where only opening it tells.

        Raises BadInput where the source does not exist.
        """

    @abstractmethod
    def open(self, scratch: Scratch) -> Source:
        """The open source; what it needs on the disk while it is read goes to the scratch folder."""

    def load(self) -> Split:
        cache, stamp, source = memory_map.cache_folder(self.cache), self.stamp(), None
        with Scratch(cache) as scratch:
            if stamp is None:
                source = self.open(scratch)
                stamp = source.stamp
            key = self._key(stamp)
            found = self._mapped(cache, key)
            return found or self._read(source or self.open(scratch), scratch, key)

    def _named(self, field: str) -> str:
        return f"{catalog.name_of(self)}.{field}"

    def _key(self, stamp: Any) -> str:
        """Of the map: everything that its contents depend on, and not where the source or the cache lies."""
        settings = catalog.identity(self)
        read_by = known(self.tokenizer) if self.tokens else ""
        return digest({**settings, "path": "", "cache": "", "memory_limit": 0, "tokenizer": read_by, "stamp": stamp})

    def _read(self, source: Source, scratch: Scratch, key: str) -> Split:
        label = columns.label_column(source, self.label, self._named("label"))
        source = columns.labelled(source, label)
        targets, classes = columns.targets(source, label)
        ids = columns.record_ids(source, self.id, self._named("id"))
        owners = columns.names(source, self.owner, self._named("owner")) if self.owner else None
        picks = self._picks(source, ids)
        reader = self._reader(source, {label, self.id, self.owner}, picks, ids)

        def gather(values: Mapping[str, Array]) -> Array:
            return np.concatenate([values[part][rows] for part, rows in picks])

        count = sum(len(rows) for _, rows in picks)
        on_disk = count * reader.row_bytes > self.memory_limit * 2**20
        decoded = _decoded(reader, picks, ids)
        shape = (count, *reader.shape)
        if on_disk:
            base = memory_map.mapped(memory_map.write_values(scratch.folder("map"), decoded), shape, reader.dtype)
        else:
            base = _in_memory(shape, reader.dtype, decoded)
        everyone = Examples.of(
            {reader.kind: base},
            torch.from_numpy(gather(targets)),
            gather(ids).tolist(),
            None if owners is None else gather(owners).tolist(),
            reader.context,
        )
        sizes = [len(rows) for _, rows in picks]
        split = self._split(source.name, reader.kind, everyone, sizes, classes)
        if on_disk:
            memory_map.keep(scratch.folder("map"), scratch.cache, key, _manifest(split, everyone, sizes))
        return split

    def _picks(self, source: Source, ids: Mapping[str, Ids]) -> Picks:
        """Rows of the training, validation and test records. A source with a validation set and no test set lends the
        former as test set, and validation records are then parted from its training records."""
        own_test = "test" if "test" in source.tables else "validation" if "validation" in source.tables else None
        own_validation = "validation" if "validation" in source.tables and own_test == "test" else None
        parting = self.parted(
            source.name,
            ids["train"],
            validation=ids[own_validation] if own_validation else None,
            test=ids[own_test] if own_test else None,
        )
        return [
            ("train", parting.train),
            (own_validation or "train", parting.validation),
            (own_test or "train", parting.test),
        ]

    def _reader(self, source: Source, taken: set[str], picks: Picks, ids: dict[str, Ids]) -> Reader:
        kind, chosen = columns.input_columns(source, taken, self.input, self._named("input"))
        if kind == "image":
            return inputs.image_reader(source, chosen[0], picks, ids, self.size, self._named("size"))
        if kind == "text" and self.tokens:
            return self._tokens(source, chosen[0], picks, ids)
        if kind == "text":
            return inputs.TextReader(source, "text", (self.text_features,), torch.float32, {}, chosen[0])
        return inputs.feature_reader(source, chosen, self.categories, catalog.name_of(self))

    def _tokens(self, source: Source, column: str, picks: Picks, ids: dict[str, Ids]) -> TokenReader:
        """A tokenizer that is learnt knows validation records only, so that nothing of it changes with what is forgotten."""
        _, classes = columns.targets(source, columns.label_column(source, self.label, self._named("label")))
        answers = [word.strip() for word in self.answers.split(",")] if self.answers else list(classes)
        if len(answers) != len(classes):
            got = f"{len(answers)} answers"
            raise BadInput(self._named("answers"), got=got, expected=f"{len(classes)}, one for each class")
        part, rows = picks[1]
        learn_from = inputs.texts_of(source, part, rows, ids[part], column)
        tokenizer = opened(self.tokenizer, learn_from, self.vocabulary, answers)
        told = context(tokenizer, self.prompt, answers)
        if len(told["prompt"]) >= self.tokens:
            expected = f"more than the prompt's {len(told['prompt'])}"
            raise BadInput(self._named("tokens"), got=self.tokens, expected=expected)
        return TokenReader(source, "tokens", (self.tokens,), torch.int32, told, column, self.keep, tokenizer)

    def _split(self, name: str, kind: str, everyone: Examples, sizes: list[int], classes: tuple[str, ...]) -> Split:
        ends = np.cumsum([0, *sizes])
        train, held, test = (everyone.take(np.arange(ends[i], ends[i + 1])) for i in range(3))
        return self.checked(name, kind, train, held, test, classes)

    def _mapped(self, cache: Path, key: str) -> Split | None:
        """The split over a map made before; None where there is none, where it fits in memory, or where it is damaged."""
        found = memory_map.find(cache, key)
        if found is None:
            return None
        place, told = found
        shape, dtype = tuple(told["shape"]), getattr(torch, told["dtype"])
        if (place / memory_map.VALUES).stat().st_size <= self.memory_limit * 2**20:
            return None
        try:
            base = memory_map.mapped(place / memory_map.VALUES, shape, dtype)
            targets = torch.tensor(told["targets"], dtype=torch.int64)
            everyone = Examples.of({told["kind"]: base}, targets, told["ids"], told["owners"], told["context"])
            split = self._split(told["name"], told["kind"], everyone, told["sizes"], tuple(told["classes"]))
        except BadInput:
            split = None
        if split is None or split.fingerprint != told["fingerprint"]:
            memory_map.remove(cache, place)
            return None
        return split


def _manifest(split: Split, everyone: Examples, sizes: list[int]) -> dict[str, Any]:
    base = everyone.inputs[split.kind]
    return {
        "name": split.name,
        "kind": split.kind,
        "classes": split.classes,
        "fingerprint": split.fingerprint,
        "shape": list(base.shape),
        "dtype": str(base.dtype).removeprefix("torch."),
        "sizes": sizes,
        "context": everyone.context,
        "targets": everyone.targets.tolist(),
        "ids": everyone.ids.tolist(),
        "owners": None if everyone.owners is None else everyone.owners.tolist(),
    }


def _decoded(reader: Reader, picks: Picks, ids: Mapping[str, Ids], bytes_at_once: int = 2**23) -> Iterator[Array]:
    """The picked rows in order, a few MiB at a time."""
    step = max(1, bytes_at_once // reader.row_bytes)
    jobs = [(part, rows[at : at + step]) for part, rows in picks for at in range(0, len(rows), step)]
    total = sum(len(rows) for _, rows in jobs)
    for part, rows in track(jobs, f"reading {reader.source.name}", total=total, weight=step):
        yield reader.decode(part, rows, ids[part])


def _in_memory(shape: tuple[int, ...], dtype: torch.dtype, decoded: Iterator[Array]) -> Tensor:
    base, at = torch.empty(shape, dtype=dtype), 0
    for values in decoded:
        base[at : at + len(values)] = torch.from_numpy(values)
        at += len(values)
    return base


def stamp_of(files: Mapping[str, Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file: what changes when a source does, wherever it lies."""
    told = [(name, path.stat()) for name, path in files.items()]
    return sorted((name, seen.st_size, seen.st_mtime_ns) for name, seen in told)
