"""Every error that a caller can cause. A message says what was got, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class PalimpsestError(Exception):
    """Base of all errors of this package. The command line prints its text as one line and exits 2."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _as_it_was, (
            type(self),
            str(self),
        )  # from worker processes; subclasses take other arguments than their text


class BadInput(PalimpsestError):
    """Something handed in cannot be used.

    >>> str(BadInput("--seeds", got=0, expected="a whole number of at least 1", do="leave it out for 3"))
    '--seeds: got 0, expected a whole number of at least 1; leave it out for 3'
    """

    def __init__(self, what: str, *, got: object, expected: object, do: str = "") -> None:
        text = f"{what}: got {_short(got)}, expected {_short(expected)}"
        super().__init__(text + (f"; {do}" if do else ""))


class UnknownName(BadInput):
    """A name that is in no catalog; the nearest known names are part of the message."""

    def __init__(self, what: str, *, got: str, known: Iterable[str], do: str = "") -> None:
        names = sorted(set(known))
        near = get_close_matches(got, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else do
        super().__init__(what, got=repr(got), expected="one of " + ", ".join(names), do=hint)


class NotFinite(BadInput):
    """A method left weights that are not finite, as it would again: the same settings, records and stream diverge the same way."""


class BeyondView(PalimpsestError):
    """An attack reached for something that its declared threat model does not give it."""


class ContractError(PalimpsestError):
    """A class breaks the contract of its kind."""


class StoreError(PalimpsestError):
    """The artifact store cannot be read or written."""


class NewerFormat(StoreError):
    """A store or a record was written by a newer version of Palimpsest."""


class CorruptArtifact(StoreError):
    """An artifact's bytes do not have the hash in its manifest."""


class WorkerDied(PalimpsestError):
    """Worker processes were killed again and again before they finished anything."""


class NothingAudited(PalimpsestError):
    """No attack and no verifier completed: a verdict would be vacuous."""


def _as_it_was(cls: type[PalimpsestError], text: str) -> PalimpsestError:
    error = cls.__new__(cls)
    Exception.__init__(error, text)
    return error


def told(error: BaseException) -> str:
    """An exception of somebody else's code in one line: its type, its message and the place it was raised at."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place}"


def _short(value: object, limit: int = 400) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
