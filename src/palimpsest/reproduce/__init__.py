"""A paper's experiment, carried out: its audits are run, its tables filled in beside the published numbers, its claims decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from palimpsest import pipeline
from palimpsest.catalog import find, identity, members, name_of
from palimpsest.errors import BadInput, UnknownName
from palimpsest.options import dataset, make_plan, reader
from palimpsest.presets import choices
from palimpsest.reproduce import bundle, page, tradeoff
from palimpsest.reproduce.reading import Reading
from palimpsest.reproduce.result import FILE, PARTS, Result, Told, read, write
from palimpsest.store import Store, digest
from palimpsest.studies.base import SCALES, Scale, Study
from palimpsest.types import Split
from palimpsest.workers import Workers

ALL = "all"
_NUMBERS = {"cells", "claims", "points", "tradeoffs"}


@dataclass(frozen=True)
class Asked:
    """What somebody asks of a study, beside its own settings.

    data: a data set's short name, as "cifar10" of "hub:uoft-cs/cifar10" → a folder, or another name. only: names of its
    audits; none: all. seeds: in place of the study's own number.
    """

    scale: str = "small"
    data: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] = ()
    seeds: int | None = None
    device: str = "cpu"
    threads: int | None = None
    workers: Workers = Workers()  # noqa: RUF009 - frozen


def study(name: str) -> Study:
    """The study of this name, as `palimpsest list studies` has it, "-" or "_" alike."""
    inside = name.replace("-", "_")
    if ":" not in name and inside not in members("studies"):
        raise UnknownName("study", got=name, known=map(shown, members("studies")))
    made: Study = find("studies", name if ":" in name else inside)()
    return made


def shown(name: str) -> str:
    """A study's name as it is written on the command line."""
    return name if ":" in name else name.replace("_", "-")


def reproduce(
    one: Study,
    asked: Asked,
    store: Store,
    out: Path,
    *,
    command: str = "",
    say: Callable[[str], None] = pipeline.silent,
) -> Result:
    """Runs the study's audits into `out/parts`, one folder each, then reads their records; returns and writes the result.

    What the store holds is not made again. Raises BadInput before anything is trained for an audit or a data set that the study
    does not have, and whatever an audit raises.
    """
    plans = chosen(one, asked)
    splits: dict[str, Callable[[], Split]] = {}
    made = []
    for name, words in plans.items():
        key = digest(identity(dataset(words)))
        read_data = splits.setdefault(key, reader(words))
        made.append((name, make_plan(words, read_data, device=asked.device), read_data))
    for place, (name, plan, read_data) in enumerate(made, 1):
        say(f"{shown(name_of(one))}, audit {place} of {len(made)}: {name}")
        folder = out / PARTS / slug(name)
        pipeline.audit(plan, store, folder, split=read_data(), command=command, say=say, workers=asked.workers)
    told = Told(
        study=name_of(one),
        revision=one.revision,
        scale=asked.scale,
        command=command,
        parts={**_earlier(one, asked, out), **{name: slug(name) for name, _, _ in made}},
    )
    return recompute(one, told, out)


def _earlier(one: Study, asked: Asked, out: Path) -> dict[str, str]:
    """Audits of the same study at the same scale that an earlier run, of others of its audits, left in the folder."""
    if not asked.only or not (out / FILE).exists():
        return {}
    told = read(out).told
    same = (told.study, told.revision, told.scale) == (name_of(one), one.revision, asked.scale)
    return dict(told.parts) if same else {}


def chosen(one: Study, asked: Asked) -> dict[str, Any]:
    """The choices of each audit that is to be run, by its name."""
    parts = {name: dict(fields) for name, fields in one.parts(_scale(asked)).items()}
    for name in asked.only:
        if name not in parts:
            raise UnknownName("--only", got=name, known=parts)
    check_data([one], asked)
    found = {}
    for name, fields in parts.items():
        if not asked.only or name in asked.only:
            fields["data"] = asked.data.get(called(fields["data"]), fields["data"])
            fields |= {key: value for key in ("seeds", "threads") if (value := getattr(asked, key)) is not None}
            found[name] = choices({"scale": asked.scale, **fields}, f"{shown(name_of(one))}: {name}: ")
    return found


def _scale(asked: Asked) -> Scale:
    for scale in SCALES:
        if asked.scale == scale:
            return scale
    raise UnknownName("--scale", got=asked.scale, known=SCALES)


def called(data: str) -> str:
    """What a data set is called for short.

    >>> called("hub:uoft-cs/cifar10")
    'cifar10'
    """
    return data.removeprefix("hub:").rpartition("/")[2]


def check_data(every: Sequence[Study], asked: Asked) -> None:
    """Raises UnknownName for a data set that none of these studies needs."""
    needs = set[str]().union(*(_needs(one, asked) for one in every))
    for name in asked.data:
        if name not in needs:
            raise UnknownName("--data", got=name, known=needs, do="write NAME=FOLDER")


def with_data_of(one: Study, asked: Asked) -> Asked:
    """The same without data sets that this study does not need."""
    needs = _needs(one, asked)
    return replace(asked, data={name: place for name, place in asked.data.items() if name in needs})


def _needs(one: Study, asked: Asked) -> set[str]:
    return {called(fields["data"]) for fields in one.parts(_scale(asked)).values()}


def recompute(one: Study, told: Told, folder: Path) -> Result:
    """The result from the audits' records and scores in a folder, without a model; writes `study.json`, report and tables there."""
    result = _result(Reading(one, told, folder))
    write(result, folder)
    page.write(one, result, folder)
    return result


def _result(reading: Reading) -> Result:
    weighed = [row for one in reading.study.tradeoffs for row in tradeoff.weigh(reading, one)]
    return reading.result().model_copy(update={"tradeoffs": weighed})


def again(one: Study, folder: Path) -> tuple[Result, bool]:
    """A result's tables and claims once more from the scores in its folder or bundle, and whether they are what it says. Nothing is
    trained and nothing written.

    Raises BadInput where a file is gone, or not as the bundle's manifest has it, where it is of another study, or the study has
    changed since.
    """
    bundle.verify(folder)
    stored = read(folder)
    if stored.told.study != name_of(one):
        got, expected = f"a result of {shown(stored.told.study)}", f"one of {shown(name_of(one))}"
        raise BadInput(str(folder), got=got, expected=expected, do="name that study")
    if any(place != slug(name) for name, place in stored.told.parts.items()):
        raise BadInput(str(folder), got="folders that no audit was written to", expected="those below parts/")
    if one.revision != stored.told.revision:
        got = f"revision {stored.told.revision} of {stored.told.study}"
        raise BadInput(str(folder), got=got, expected=f"revision {one.revision}", do="run it again")
    found = _result(Reading(one, stored.told, folder))
    same = _rounded(found.model_dump(include=_NUMBERS)) == _rounded(stored.model_dump(include=_NUMBERS))
    return found, same


def _rounded(value: Any) -> Any:
    """Numbers to nine digits: other versions of numpy and scipy may differ in the last ones."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def slug(name: str) -> str:
    """A part's name as a folder."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
