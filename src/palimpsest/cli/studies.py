"""The command that reproduces the papers' tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palimpsest.cli import words
from palimpsest.errors import BadInput, PalimpsestError

if TYPE_CHECKING:
    from palimpsest.reproduce import Asked
    from palimpsest.reproduce.result import Result
    from palimpsest.studies.base import Study


def reproduce(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A study of `palimpsest list studies`, or all.")],
    scale: Annotated[str, typer.Option("--scale", metavar="small|paper", help="Whose size and settings.")] = "small",
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="NAME=WHERE", help="Where a data set lies: cifar10=FOLDER; repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="AUDIT", help="One of the study's audits; repeatable.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Seeds, in place of the study's own number.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where results go (default: out/STUDY-SCALE).")
    ] = None,
    store: words.StoreFolder = words.STORE,
    device: words.Device = "cpu",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch.")] = None,
    workers: words.Workers = 1,
    backend: words.Backend = "processes",
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="DIR", help="Write a bundle too: tables can be recomputed from it."),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Recompute from a bundle or result, train nothing.")
    ] = None,
) -> None:
    """Reproduce a table or figure of a paper: published beside measured numbers, and which of its claims hold.

    A run that was stopped goes on where it was; one that is repeated takes everything from the store.
    """
    from palimpsest import catalog
    from palimpsest import reproduce as studies
    from palimpsest.reproduce import bundle
    from palimpsest.workers import Workers

    if from_ is not None:
        _again(name, from_)
        return
    if export is not None:
        bundle.check_target(export)
    where = dict(_named(text) for text in data or ())
    every = name == studies.ALL
    if every and (only or out or export):
        given = "--only" if only else "--out" if out else "--export"
        raise BadInput(given, got="it beside all", expected="one study", do="name the study")
    asked = studies.Asked(scale, where, tuple(only or ()), seeds, device, threads, Workers(workers, backend))
    if not every:
        _run(studies.study(name), name, asked, store, out or _folder(name, scale), export)
        return
    names = [studies.shown(n) for n in sorted(catalog.members("studies"))]
    every_one = [studies.study(one_name) for one_name in names]
    studies.check_data(every_one, asked)
    failed = []
    for one, one_name in zip(every_one, names, strict=True):
        try:
            _run(one, one_name, studies.with_data_of(one, asked), store, _folder(one_name, scale), None)
        except PalimpsestError as error:
            words.say(f"{one_name}: {error}")
            failed.append(one_name)
    if failed:
        got, do = (
            f"{len(failed)} of {len(names)} that failed: {', '.join(failed)}",
            "run it again: what is done is not done twice",
        )
        raise BadInput("reproduce all", got=got, expected="every study to run", do=do)


def _folder(name: str, scale: str) -> Path:
    return Path("out") / f"{name.replace(':', '-')}-{scale}"


def _run(one: Study, name: str, asked: Asked, store: Path, folder: Path, export: Path | None) -> None:
    from palimpsest import reproduce as studies
    from palimpsest.reproduce import bundle
    from palimpsest.store import Store

    with words.progress():
        result = studies.reproduce(one, asked, Store(store), folder, command=words.session.get().command, say=words.say)
    _show(one, result)
    words.say(f"result  {folder / 'study.json'}")
    words.say(f"report  {folder / 'report.html'}")
    if export is not None:
        files = bundle.export(folder, export)
        words.say(f"bundle  {export}: {len(files)} files; palimpsest reproduce {name} --from {export}")


def _again(name: str, folder: Path) -> None:
    from palimpsest import reproduce as studies

    one = studies.study(name)
    result, same = studies.again(one, folder)
    _show(one, result)
    words.say("recomputed from stored scores: " + ("the same numbers" if same else "NOT the numbers in study.json"))
    if not same:
        raise BadInput(str(folder), got="other numbers than study.json has", expected="the same", do="export it again")


def _show(one: Study, result: Result) -> None:
    from palimpsest.cli import present, present_study

    console = present.console()
    console.print()
    for table in present_study.tables(one, result):
        console.print(table)
        console.print()
    console.print(present_study.claims(result))
    for line in present.warnings(result.warnings):
        console.print(line, style="yellow", soft_wrap=True)
    if any(claim.seeds == 1 for claim in result.claims):
        console.print(present_study.ONE_SEED, style="dim", soft_wrap=True)


def _named(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals or not name or not place:
        raise BadInput("--data", got=repr(text), expected="NAME=WHERE", do="write it like --data cifar10=FOLDER")
    return name, place if place.startswith("hub:") or not Path(place).is_dir() else f"hub:{place}"
