"""Which records a request names: class=0, class=0:0.5, random=0.1, random=500, random=100/8, ids=FILE, owner=ID."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from palimpsest.errors import BadInput, UnknownName
from palimpsest.rng import Rng
from palimpsest.types import Examples, ForgetRequest, Ids

FORMS = "class=0, class=0,3, class=0:0.5, random=0.1, random=500, random=100/8, ids=FILE or owner=ID"


def select(
    text: str, records: Examples, classes: tuple[str, ...], *, rng: Rng, whole: Examples | None = None
) -> ForgetRequest:
    """The request that `text` stands for, among training records. A class is named by its number or its name, and `:0.5` after it
    takes that share of its records, at random. whole: what the rest is left of, where requests are separate; none: `records`.

    Raises BadInput for another form, a class, owner or id that is not there, nothing to forget, or nothing left.
    """
    how, equals, what = text.partition("=")
    if not equals or how not in _SELECTORS or not what:
        raise BadInput("--forget", got=repr(text), expected=FORMS)
    ids = _SELECTORS[how](what, records, classes, rng)
    if not len(ids):
        raise BadInput(f"--forget {text}", got="no record", expected="at least one training record")
    ids = np.sort(ids)
    left = (records if whole is None else whole).without(ids.tolist())
    if not len(left):
        raise BadInput(
            f"--forget {text}", got="every training record", expected="some left to retain", do="forget fewer"
        )
    if len(np.unique(left.targets.cpu().numpy())) < 2:
        raise BadInput(
            f"--forget {text}", got="retain records of one class", expected="two classes or more", do="forget fewer"
        )
    return ForgetRequest(ids, text)


def each(text: str) -> tuple[str, ...]:
    """The requests that `text` stands for: random=100/8 for a hundred random records in requests of eight, the last of what is
    left; anything else for itself. Raises BadInput where that are no whole numbers above 0.

    >>> each("random=20/8")
    ('random=8', 'random=8', 'random=4')
    """
    how, _, what = text.partition("=")
    if how != "random" or "/" not in what:
        return (text,)
    total, _, size = what.partition("/")
    if not (total.isdecimal() and size.isdecimal() and 0 < int(size) <= int(total)):
        raise BadInput("--forget random", got=repr(what), expected="whole numbers, as in random=100/8")
    full, rest = divmod(int(total), int(size))
    return (f"random={size}",) * full + (f"random={rest}",) * (rest > 0)


def _by_class(what: str, records: Examples, classes: tuple[str, ...], rng: Rng) -> Ids:
    chosen, targets = [], records.targets.cpu().numpy()
    for part in what.split(","):
        label, share = _class_and_share(part, classes)
        mine: Ids = records.ids[targets == label]
        if share < 1:
            draw = rng.child("forget", "class", label).numpy()
            mine = draw.choice(mine, round(share * len(mine)), replace=False)
        chosen.append(mine)
    return np.unique(np.concatenate(chosen))


def _class_and_share(part: str, classes: tuple[str, ...]) -> tuple[int, float]:
    """The number of the class that `part` names, and the share of its records that it asks for."""
    name, share = part, 1.0
    if ":" in part and part not in classes and part.strip() not in classes:
        name, _, amount = part.rpartition(":")
        share = _share(amount)
    name = name if name in classes else name.strip()
    if name in classes:
        return classes.index(name), share
    if name.isdecimal() and int(name) < len(classes):
        return int(name), share
    raise UnknownName("--forget class", got=name, known=[*classes, *(str(i) for i in range(len(classes)))])


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise BadInput(
            "--forget class", got=f"the share {text!r}", expected="a number between 0 and 1, as in class=0:0.5"
        )
    return share


def _at_random(what: str, records: Examples, classes: tuple[str, ...], rng: Rng) -> Ids:
    try:
        number = float(what)
    except ValueError:
        number = -1.0
    if 0 < number < 1:
        count = round(number * len(records))
    else:  # 1.0 is neither a share below 1 nor a count
        count = int(what) if what.isdecimal() else 0
    if not 0 < count <= len(records):
        expected = f"a share between 0 and 1, or a count from 1 to {len(records)}"
        raise BadInput("--forget random", got=what, expected=expected)
    drawn: Ids = rng.child("forget").numpy().choice(records.ids, count, replace=False)
    return drawn


def _by_ids(what: str, records: Examples, classes: tuple[str, ...], rng: Rng) -> Ids:
    wanted = read_ids(Path(what))
    missing = sorted(set(wanted) - set(records.ids.tolist()))
    if missing:
        got = f"{len(missing)} ids that are not among the training records, {missing[0]!r} first"
        raise BadInput(
            f"--forget ids={what}",
            got=got,
            expected=f"ids such as {str(records.ids[0])!r}",
            do="remove them from the file",
        )
    return np.asarray(list(set(wanted)), dtype=np.str_)


def _by_owner(what: str, records: Examples, classes: tuple[str, ...], rng: Rng) -> Ids:
    if records.owners is None:
        raise BadInput(
            "--forget owner",
            got="data without owners",
            expected="an owner column",
            do="name it: --set table.owner=COLUMN",
        )
    if what not in records.owners:
        raise UnknownName("--forget owner", got=what, known=np.unique(records.owners).tolist()[:20])
    mask = np.asarray(records.owners == what)
    owned: Ids = records.ids[mask]
    return owned


_SELECTORS = {"class": _by_class, "random": _at_random, "ids": _by_ids, "owner": _by_owner}


def read_ids(path: Path) -> list[str]:
    """One id per line; blank lines are skipped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            str(path), got=getattr(error, "strerror", None) or error, expected="a text file with one record id per line"
        ) from None
    return [line.strip() for line in lines if line.strip()]
