"""What a data set is: something that loads into a `Split`. Parts are chosen by the hash of each record's id."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.types import Array, Examples, Ids, Split


@dataclass(frozen=True)
class Dataset(ABC):
    """Base of all data sets. A subclass says how its records are read; parting, checks and the fingerprint are here.

    Records are parted by a hash of their ids, so a part never changes when the order of the source or another
    record does.
    """

    kind: ClassVar[str] = "data"
    revision: ClassVar[int] = 1
    about: ClassVar[str] = ""

    limit: int | None = setting(
        None, "at most this many training records, and as many test records; none: all", source="ours"
    )
    validation: float = setting(
        0.1, "share of the training records kept apart for validation, in (0, 1)", source="ours"
    )
    test: float = setting(
        0.25, "share of the records used as test set where the source brings none, in (0, 1)", source="ours"
    )

    @abstractmethod
    def load(self) -> Split:
        """Reads the records. Raises BadInput for a missing file or column, non-finite values, or fewer than two classes."""

    def part(
        self, name: str, kind: str, records: Examples, classes: tuple[str, ...], test: Examples | None = None
    ) -> Split:
        """Parts records into train, validation and test, applies the limit, checks and fingerprints."""
        for field, share in (("validation", self.validation), ("test", self.test)):
            if not 0 < share < 1:
                raise BadInput(f"{name}.{field}", got=share, expected="a share between 0 and 1")
        if test is None:
            order = by_hash(records.ids, "test")
            cut = round(self.test * len(records))
            test, records = records.take(np.sort(order[:cut])), records.take(np.sort(order[cut:]))
        if self.limit is not None:
            if self.limit < 10:
                raise BadInput(f"{name}.limit", got=self.limit, expected="at least 10 records")
            records, test = (first_by_hash(part, self.limit) for part in (records, test))
        order = by_hash(records.ids, "validation")
        cut = max(1, round(self.validation * len(records)))
        train, held = records.take(np.sort(order[cut:])), records.take(np.sort(order[:cut]))
        for part_name, part in (("train", train), ("validation", held), ("test", test)):
            check(f"{name}: {part_name}", part)
        present = np.unique(train.targets.numpy())
        if len(present) < 2:
            raise BadInput(
                name,
                got=f"{len(present)} class in the training records",
                expected="at least 2",
                do="check the label column",
            )
        low, high = (torch.zeros(()), torch.ones(())) if kind == "image" else bounds(train, held, test)
        return Split(name, kind, train, held, test, classes, fingerprint(train, held, test), (low, high))


def by_hash(ids: Ids, salt: str) -> Array:
    """Positions in the order of a salted hash of the ids: a shuffle that depends on nothing but the names."""
    keys = [hashlib.blake2b(f"{salt}:{name}".encode(), digest_size=8).digest() for name in ids.tolist()]
    return np.argsort(np.array([int.from_bytes(key, "big") for key in keys], dtype=np.uint64), kind="stable")


def first_by_hash(part: Examples, limit: int) -> Examples:
    return part if len(part) <= limit else part.take(np.sort(by_hash(part.ids, "limit")[:limit]))


def check(where: str, part: Examples, chunk: int = 4096) -> None:
    """Refuses an empty part, and NaN or infinite values."""
    if not len(part):
        raise BadInput(where, got="no records", expected="at least one", do="raise the limit or the share")
    for name, base in part.inputs.items():
        if not base.is_floating_point():
            continue
        for start in range(0, len(part), chunk):
            values = part.raw(name, torch.arange(start, min(start + chunk, len(part))))
            if not bool(torch.isfinite(values).all()):
                row = int((~torch.isfinite(values)).flatten(1).any(1).nonzero()[0]) + start
                got = f"a NaN or infinite value in {name!r} of record {part.ids[row]!r}"
                raise BadInput(where, got=got, expected="finite numbers", do="fill or drop such rows")


def bounds(*parts: Examples, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each feature over all records (the attacker's box, not used in training)."""
    lows, highs = [], []
    for part in parts:
        name = next(iter(part.inputs))
        for start in range(0, len(part), chunk):
            values = part.raw(name, torch.arange(start, min(start + chunk, len(part)))).float()
            lows.append(values.amin(0))
            highs.append(values.amax(0))
    return torch.stack(lows).amin(0), torch.stack(highs).amax(0)


def fingerprint(*parts: Examples, chunk: int = 4096) -> str:
    """SHA-256 over ids, targets and input values of all parts."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update("\n".join(part.ids.tolist()).encode())
        hasher.update(part.targets.cpu().numpy().tobytes())
        if part.owners is not None:
            hasher.update("\n".join(part.owners.tolist()).encode())
        for name in sorted(part.inputs):
            hasher.update(name.encode())
            for start in range(0, len(part), chunk):
                values = part.raw(name, torch.arange(start, min(start + chunk, len(part))))
                hasher.update(np.ascontiguousarray(values.cpu().numpy()).tobytes())
    return hasher.hexdigest()
