"""What a data set is: something that loads into a `Split`. Parts are chosen by the hash of each record's id."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from palimpsest.catalog import Checked, setting
from palimpsest.errors import BadInput
from palimpsest.types import Array, Examples, Ids, Split


@dataclass(frozen=True)
class Parting:
    """Which records go where, as positions. Validation and test records are counted in the source's own validation and test
    sets where it brings them, else among its training records, like `train`."""

    train: Array
    validation: Array
    test: Array


@dataclass(frozen=True, kw_only=True)
class Dataset(Checked, ABC):
    """Base of all data sets. A subclass says how its records are read; parting, checks and the fingerprint are here.

    Whether a record is a training, validation or test record is decided by a hash of its id alone. So no record changes
    its part when the source is in another order, or when other records come or go. (A limit takes those with the lowest
    hashes: a record that goes lets the next one in.)
    """

    kind: ClassVar[str] = "data"
    revision: ClassVar[int] = 1
    about: ClassVar[str] = ""

    limit: int | None = setting(
        None, "at most this many training records, and as many test records; none: all", source="ours", least=10
    )
    validation: float = setting(
        0.1,
        "share of the training records kept apart for validation, in [0, 1); at least one record is",
        source="ours",
        least=0,
        below=1,
    )
    test: float = setting(
        0.25,
        "share of the records used as test set where the source brings none, in (0, 1)",
        source="ours",
        above=0,
        below=1,
    )
    public: float = setting(
        0.0,
        "share of the training records set aside as public: what models are pre-trained on, and nobody asks to forget",
        source="ours; inversion paper: 0.8",
        least=0,
        below=1,
    )
    private: int | None = setting(
        None,
        "at most this many training records beside the public ones; none: all",
        source="ours; inversion paper: 4, 8, 16, 32, 512",
        least=2,
    )

    @abstractmethod
    def load(self) -> Split:
        """Reads the records. Raises BadInput for a missing file or column, non-finite values, or fewer than two classes."""

    def parted(self, name: str, ids: Ids, *, validation: Ids | None = None, test: Ids | None = None) -> Parting:
        """Parts records by their ids alone, before any is decoded. The limit counts training and validation together."""
        pool = np.arange(len(ids))
        if test is None:
            drawn = by_share(ids, "test", self.test)
            pool, tested = pool[~drawn], self._limited(ids, pool[drawn])
        else:
            tested = self._limited(test, np.arange(len(test)))
        pool = self._limited(ids, pool)
        if validation is None:
            drawn = by_share(ids[pool], "validation", self.validation)
            return Parting(pool[~drawn], pool[drawn], tested)
        return Parting(pool, self._limited(validation, np.arange(len(validation))), tested)

    def _limited(self, ids: Ids, positions: Array) -> Array:
        """Those of the positions that the limit leaves, in their order."""
        if self.limit is None or len(positions) <= self.limit:
            return positions
        return positions[np.sort(np.argsort(hashes(ids[positions], "limit"), kind="stable")[: self.limit])]

    def part(
        self, name: str, kind: str, records: Examples, classes: tuple[str, ...], test: Examples | None = None
    ) -> Split:
        """Parts records into train, validation and test, applies the limit, checks and fingerprints."""
        where = self.parted(name, records.ids, test=None if test is None else test.ids)
        held = records.take(where.validation)
        tested = (records if test is None else test).take(where.test)
        return self.checked(name, kind, records.take(where.train), held, tested, classes)

    def checked(
        self, name: str, kind: str, train: Examples, validation: Examples, test: Examples, classes: tuple[str, ...]
    ) -> Split:
        """The split of these parts, public records taken from the training records, checked and fingerprinted."""
        public = None
        if self.public:
            drawn = by_share(train.ids, "public", self.public)
            public, train = train.take(drawn), train.take(~drawn)
        if self.private is not None and len(train) > self.private:
            train = train.take(np.sort(np.argsort(hashes(train.ids, "private"), kind="stable")[: self.private]))
        parts = [("train", train), ("validation", validation), ("test", test)]
        parts += [("public", public)] if public is not None else []
        for part_name, part in parts:
            check(f"{name}: {part_name}", part)
        present = np.unique(train.targets.numpy())
        if len(present) < 2:
            raise BadInput(
                name,
                got=f"{len(present)} class in the training records",
                expected="at least 2",
                do="check the label column",
            )
        every = [part for _, part in parts]
        if kind == "image":
            domain = torch.zeros(()), torch.ones(())
        elif kind == "tokens":
            domain = torch.tensor(-1.0), torch.tensor(train.context["vocabulary"] - 1.0)
        else:
            domain = bounds(*every)
        return Split(name, kind, train, validation, test, classes, fingerprint(*every), domain, public)


def hashes(ids: Ids, salt: str) -> Array:
    """A number in [0, 2**64) for each id, uniform, that depends on nothing but the id and the salt."""
    keys = [hashlib.blake2b(f"{salt}:{name}".encode(), digest_size=8).digest() for name in ids.tolist()]
    return np.array([int.from_bytes(key, "big") for key in keys], dtype=np.uint64)


def by_share(ids: Ids, salt: str, share: float) -> Array:
    """Boolean mask of the ids whose hash lies in the first `share` of its range: about that share of them, at least one."""
    keys = hashes(ids, salt)
    drawn = keys < np.uint64(share * 2**64)
    if len(keys) and not drawn.any():
        drawn[np.argmin(keys)] = True
    return drawn


def chunks(part: Examples, bytes_at_once: int = 2**24) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """All stored values in order, a few MiB at a time: (position of the first record, input name → values)."""
    row = sum(base[:1].numel() * base.element_size() for base in part.inputs.values())
    step = max(1, bytes_at_once // max(1, row))
    for start in range(0, len(part), step):
        where = torch.arange(start, min(start + step, len(part)))
        yield start, {name: part.raw(name, where) for name in sorted(part.inputs)}


def check(where: str, part: Examples) -> None:
    """Refuses an empty part, and NaN or infinite values."""
    if not len(part):
        raise BadInput(where, got="no records", expected="at least one", do="raise the limit or the share")
    if not any(base.is_floating_point() for base in part.inputs.values()):
        return
    for start, inputs in chunks(part):
        for name, values in inputs.items():
            if not bool(torch.isfinite(values).all()):
                row = int((~torch.isfinite(values)).flatten(1).any(1).nonzero()[0]) + start
                got = f"a NaN or infinite value in {name!r} of record {str(part.ids[row])!r}"
                raise BadInput(where, got=got, expected="finite numbers", do="fill or drop such rows")


def bounds(*parts: Examples) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each feature over all records (the attacker's box, not used in training)."""
    lows, highs = [], []
    for part in parts:
        name = next(iter(part.inputs))
        for _, inputs in chunks(part):
            lows.append(inputs[name].float().amin(0))
            highs.append(inputs[name].float().amax(0))
    return torch.stack(lows).amin(0), torch.stack(highs).amax(0)


def fingerprint(*parts: Examples) -> str:
    """SHA-256 over the ids, targets, owners and input values of all parts; not over where they are stored."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update("\n".join(part.ids.tolist()).encode())
        hasher.update(part.targets.cpu().numpy().tobytes())
        if part.owners is not None:
            hasher.update("\n".join(part.owners.tolist()).encode())
        for name in sorted(part.inputs):
            base = part.inputs[name]
            hasher.update(f"{name} {base.dtype} {tuple(base.shape[1:])}".encode())
            for _, inputs in chunks(replace(part, inputs={name: base})):
                hasher.update(np.ascontiguousarray(inputs[name].cpu().numpy()).tobytes())
    return hasher.hexdigest()
