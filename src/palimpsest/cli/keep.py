"""Commands that look after what is stored: store ls, store gc, store verify, purge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palimpsest.cli import words
from palimpsest.errors import BadInput, StoreError

if TYPE_CHECKING:
    from palimpsest.store import Store

stores = typer.Typer(help="Look after the store of models and scores.", rich_markup_mode=None)


def opened(folder: Path) -> Store:
    """The store in a folder that exists; looking at one must not create it."""
    from palimpsest.store import Store

    if not folder.is_dir():
        raise BadInput("--store", got=f"{folder}, which is no folder", expected="a store", do="pass --store DIR")
    return Store(folder)


@stores.command("ls")
def ls(store: words.StoreFolder = words.STORE) -> None:
    """List the artifacts."""
    from palimpsest.cli import present

    entries = list(opened(store).entries())
    present.console().print(present.entries(entries))
    words.say(f"{len(entries)} artifacts, {sum(entry.bytes for entry in entries):,} bytes")


@stores.command("gc")
def gc(store: words.StoreFolder = words.STORE) -> None:
    """Remove what nothing uses: leftovers of killed runs, damaged artifacts."""
    words.say(f"freed {opened(store).gc():,} bytes")


@stores.command("verify")
def verify(store: words.StoreFolder = words.STORE) -> None:
    """Check every artifact's bytes against its hash. Exit 2 where one is damaged."""
    from palimpsest.cli import present

    damaged = opened(store).verify()
    if damaged:
        present.console().print(present.entries(damaged))
        do = "run `palimpsest store gc`; what is missing is made again"
        raise StoreError(f"{store}: got {len(damaged)} damaged artifacts, expected none; {do}")
    words.say("all artifacts are sound")


def purge(
    ids: Annotated[str, typer.Option(metavar="FILE", help="Ids of the records, one a line.")],
    store: words.StoreFolder = words.STORE,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An audit's folder whose scores and images are to go too.")
    ] = None,
) -> None:
    """Remove everything stored that still holds given records: weights trained on them, scores, images, memory maps."""
    from palimpsest import steps
    from palimpsest.data.memory_map import cache_folder
    from palimpsest.forget.selection import read_ids

    removed = steps.purge(read_ids(Path(ids)), opened(store), cache_folder(), report)
    for line in removed:
        words.say(f"removed {line}")
    words.say(f"{len(removed)} removed; the source of the data is as it was")
