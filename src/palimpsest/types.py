"""The frozen records that every other module speaks in: examples, splits, requests, costs, scores, measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palimpsest.errors import BadInput

Ids = npt.NDArray[Any]
"""Text array: stable names of records, shape (n,). Never positions: a subset keeps the names it was given."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Records as the model takes them: inputs by name, first axis the record; images are floats in [0, 1]."""

    inputs: Mapping[str, Tensor]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def with_targets(self, targets: Tensor) -> Batch:
        return replace(self, targets=targets)


@dataclass(frozen=True)
class Examples:
    """Records of one kind. Subsets share the base storage (`inputs`) and differ in `rows` only.

    inputs: name → base tensor, shape (base size, …); uint8 for images, float32 for features. It may live in
        memory, on a device, or in an Arrow memory map; a subset never copies it.
    targets: shape (n,), int64 class labels.
    ids: shape (n,), unique. owners: shape (n,) or None. context: what records share (a tokenizer, a graph).
    rows: shape (n,), int64, the records' places in the base, or beyond it in `submitted`.
    submitted: name → tensor, shape (m, …), as the model takes it (float32 where the base has pixels): records that somebody handed
        in beside the base.
    """

    inputs: Mapping[str, Tensor]
    targets: Tensor
    ids: Ids
    rows: Tensor
    owners: Ids | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    submitted: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(
        inputs: Mapping[str, Tensor],
        targets: Tensor,
        ids: Iterable[str],
        owners: Iterable[str] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Examples:
        names = np.asarray(list(ids), dtype=np.str_)
        if len(set(names.tolist())) != len(names):
            raise BadInput(
                "record ids", got="the same id twice", expected="one id per record", do="make the ids unique"
            )
        held = None if owners is None else np.asarray(list(owners), dtype=np.str_)
        return Examples(inputs, targets.long(), names, torch.arange(len(names)), held, context or {})

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, positions: Tensor | Array | list[int]) -> Examples:
        """The records at these positions (0 … n−1, or a Boolean mask), in that order."""
        where = torch.as_tensor(np.asarray(positions))
        where = where.nonzero().flatten() if where.dtype == torch.bool else where.long()
        picked = where.numpy()
        return replace(
            self,
            targets=self.targets[where.to(self.targets.device)],
            ids=self.ids[picked],
            rows=self.rows[where],
            owners=None if self.owners is None else self.owners[picked],
        )

    def only(self, ids: Iterable[str]) -> Examples:
        """The records with these ids, in this object's order."""
        return self.take(np.isin(self.ids, np.asarray(list(ids), dtype=np.str_)))

    def without(self, ids: Iterable[str]) -> Examples:
        return self.take(~np.isin(self.ids, np.asarray(list(ids), dtype=np.str_)))

    @staticmethod
    def joined(parts: Sequence[Examples]) -> Examples:
        """All records of several parts, in order. Parts of one base go on sharing it; others are copied into one."""
        first, owners = parts[0], [part.owners for part in parts if part.owners is not None]
        shared = all(part.inputs[name] is base for part in parts for name, base in first.inputs.items())
        handed = [part.submitted for part in parts if part.submitted]
        shared = shared and all(one is handed[0] for one in handed)
        seen = as_float if handed else torch.Tensor.contiguous
        return Examples(
            first.inputs if shared else {n: torch.cat([seen(part.raw(n)) for part in parts]) for n in first.inputs},
            torch.cat([part.targets for part in parts]),
            np.concatenate([part.ids for part in parts]),
            torch.cat([part.rows for part in parts]) if shared else torch.arange(sum(map(len, parts))),
            np.concatenate(owners) if len(owners) == len(parts) else None,
            first.context,
            handed[0] if shared and handed else {},
        )

    def altered(self, ids: Ids, inputs: Mapping[str, Tensor], targets: Tensor) -> Examples:
        """The same records, of which those with these ids have other contents, under their old names and in their old places.

        inputs: name → shape (m, …), float, in the model's range; targets: shape (m,). Raises BadInput for an id that is not there,
        or is there twice, and for contents of another shape.
        """
        places = {name: place for place, name in enumerate(self.ids.tolist())}
        strange = [name for name in ids.tolist() if name not in places]
        if strange or len(set(ids.tolist())) != len(ids):
            got = f"{strange[0]}, which is none of them" if strange else "an id twice"
            raise BadInput("submitted records", got=got, expected="ids of training records, each once")
        for name, base in self.inputs.items():
            given = tuple(inputs[name].shape) if name in inputs else None
            if given != (len(ids), *base.shape[1:]):
                raise BadInput(
                    f"submitted {name}", got=f"shape {given}", expected=f"shape {(len(ids), *base.shape[1:])}"
                )
        if self.submitted:
            raise BadInput("submitted records", got="some that were handed in before", expected="none yet")
        at = torch.tensor([places[name] for name in ids.tolist()], dtype=torch.long)
        size = len(next(iter(self.inputs.values())))
        rows, wanted = self.rows.clone(), self.targets.clone()
        rows[at] = size + torch.arange(len(ids))
        wanted[at.to(wanted.device)] = targets.to(wanted)
        given_in = {
            name: inputs[name].detach().to(base.device, as_float(base[:0]).dtype) for name, base in self.inputs.items()
        }
        return replace(self, rows=rows, targets=wanted, submitted=given_in)

    @property
    def handed_in(self) -> Array:
        """Which records somebody handed in, shape (n,), true or false."""
        return (self.rows >= len(next(iter(self.inputs.values())))).numpy()

    def to(self, device: torch.device | str) -> Examples:
        """The same records with the base storage on this device (moved once; subsets made from it share it)."""
        where = torch.device(device)
        if all(base.device == where for base in self.inputs.values()) and self.targets.device == where:
            return self
        moved = {name: base.to(where) for name, base in self.inputs.items()}
        submitted = {name: base.to(where) for name, base in self.submitted.items()}
        return replace(self, inputs=moved, targets=self.targets.to(where), submitted=submitted)

    def apart(self) -> Examples:
        """The same records in the main memory, on a base that holds no others: what to send to another process."""
        inputs = {name: self.raw(name).cpu() for name in self.inputs}
        return replace(self, inputs=inputs, targets=self.targets.cpu(), rows=torch.arange(len(self)), submitted={})

    def raw(self, name: str, positions: Tensor | None = None) -> Tensor:
        """Stored values of one input, shape (n, …), in the base's dtype; as the model takes them where some were handed in."""
        rows = self.rows if positions is None else self.rows[positions]
        base = self.inputs[name]
        beyond = rows >= len(base) if self.submitted else None
        if beyond is None or not bool(beyond.any()):
            return base.index_select(0, rows.to(base.device))
        found = as_float(base.index_select(0, torch.where(beyond, 0, rows).to(base.device)))
        found[beyond.to(base.device)] = self.submitted[name].index_select(0, (rows[beyond] - len(base)).to(base.device))
        return found

    def batch(self, positions: Tensor | None = None) -> Batch:
        """These records as the model takes them: uint8 becomes float32 in [0, 1]."""
        targets = self.targets if positions is None else self.targets[positions.to(self.targets.device)]
        return Batch({name: as_float(self.raw(name, positions)) for name in self.inputs}, targets)

    def batches(self, size: int) -> Iterator[Batch]:
        """All records in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(torch.arange(start, min(start + size, len(self))))


def as_float(values: Tensor) -> Tensor:
    """uint8 pixels become float32 in [0, 1] (divided by 255); integers and floats become float32 or stay."""
    if values.dtype == torch.uint8:
        return values.float() / 255.0
    return values


@dataclass(frozen=True)
class Split:
    """A data set, parted. `fingerprint` is a hash of the contents; equal contents have equal fingerprints.

    public: training records set aside, which models may be pre-trained on and nobody asks to forget; None where there are none.
    """

    name: str
    kind: str  # image | features | text
    train: Examples
    validation: Examples
    test: Examples
    classes: tuple[str, ...]
    fingerprint: str
    domain: tuple[Tensor, Tensor]  # lowest and highest value of the attacked input, broadcast over its shape
    public: Examples | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one record's (first) input, without the record axis."""
        return tuple(next(iter(self.train.inputs.values())).shape[1:])

    def to(self, device: torch.device | str) -> Split:
        """The split on a device; the base storage is moved once even when the parts share it."""
        parts = (self.train, self.validation, self.test, *([] if self.public is None else [self.public]))
        train, validation, test, *public = moved(parts, device)
        low, high = self.domain
        return replace(
            self,
            train=train,
            validation=validation,
            test=test,
            domain=(low.to(device), high.to(device)),
            public=public[0] if public else None,
        )


def moved(parts: Sequence[Examples], device: torch.device | str) -> list[Examples]:
    """Several parts on a device; a base that they share is moved once."""
    seen: dict[int, Tensor] = {}
    found = []
    for part in parts:
        for base in (*part.inputs.values(), *part.submitted.values()):
            if id(base) not in seen:
                seen[id(base)] = base.to(device)
        inputs = {name: seen[id(base)] for name, base in part.inputs.items()}
        submitted = {name: seen[id(base)] for name, base in part.submitted.items()}
        found.append(replace(part, inputs=inputs, targets=part.targets.to(device), submitted=submitted))
    return found


@dataclass(frozen=True)
class ForgetRequest:
    """Who wants which records forgotten. `ids` are stored with the case and never derived again."""

    ids: Ids
    selection: str
    requester: str = ""
    reason: str = ""
    time: str = ""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Cost:
    """What a piece of learning or unlearning cost.

    seconds: wall clock. samples: records passed forward and backward, repeats counted.
    gradient_evaluations: optimiser steps or other calls of the gradient of a batch. peak_memory: bytes by which the process
    (or the GPU) rose above where it stood; 0 where not measured.
    """

    seconds: float = 0.0
    samples: int = 0
    gradient_evaluations: int = 0
    peak_memory: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.samples + other.samples,
            self.gradient_evaluations + other.gradient_evaluations,
            max(self.peak_memory, other.peak_memory),
        )


@dataclass(frozen=True)
class Scores:
    """Named arrays whose first axis is the unit ("record", "class", …), and the units' ids.

    Entries may be vectors: an array of shape (n, k) holds k values per unit, and `axes` then gives the k values
    of its second axis (for example `{"epsilon": (0.03, 0.06)}`).
    """

    unit: str
    ids: Ids
    arrays: Mapping[str, Array]
    axes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.arrays.items():
            if len(values) != len(self.ids):
                raise BadInput(
                    f"scores {name!r}", got=f"{len(values)} rows", expected=f"{len(self.ids)}, one per {self.unit}"
                )

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """The units of several, in order. Raises BadInput where their arrays or axes differ."""
        first = parts[0]
        for part in parts[1:]:
            if (part.unit, part.arrays.keys(), part.axes) != (first.unit, first.arrays.keys(), first.axes):
                raise BadInput("scores", got="parts of different kinds", expected="the same arrays and axes in each")
        ids = np.concatenate([part.ids for part in parts])
        return replace(
            first,
            ids=ids,
            arrays={name: np.concatenate([part.arrays[name] for part in parts]) for name in first.arrays},
        )

    def where(self, mask: Array) -> Scores:
        return replace(self, ids=self.ids[mask], arrays={name: values[mask] for name, values in self.arrays.items()})


@dataclass(frozen=True)
class Measure:
    """One number with its interval. `replicates` are bootstrap replicates, drawn with the same resampling for equal units,
    so that the difference of two measures' replicates is a paired bootstrap; they are not written to the record."""

    name: str
    value: float
    low: float
    high: float
    n: int
    at: Mapping[str, float] = field(default_factory=dict)
    replicates: Array | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> tuple[str, tuple[tuple[str, float], ...]]:
        return self.name, tuple(sorted(self.at.items()))


class Finding(StrEnum):
    """What an audit says of an unlearning method at the settings tried."""

    FORGOTTEN = "forgotten"
    RESIDUAL = "residual"
    SUPPRESSED_HEAD = "suppressed-head"
    OVER_FORGOTTEN = "over-forgotten"
    NOT_APPLIED = "not-applied"
    INCONCLUSIVE = "inconclusive"


class Leak(StrEnum):
    """What an attack that compares two models says of a deletion."""

    LEAKED = "leaked"
    NOT_LEAKED = "not leaked"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """A finding and the sentences that led to it."""

    unlearner: str
    settings: Mapping[str, Any]
    verdict: Finding
    because: tuple[str, ...]
    request: int = 0
    defence: str | None = None
