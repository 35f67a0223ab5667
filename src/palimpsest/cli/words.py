"""The options that commands share, and what becomes of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

STORE = Path(".palimpsest/store")

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help="Name, folder, .csv or .parquet file, hub:NAME or my_module:MyClass."),
]
Limit = Annotated[str | None, typer.Option("--limit", metavar="N", help="At most this many training records.")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model, or my_package.models:make.")]
Learner = Annotated[str | None, typer.Option("--learner", metavar="NAME", help="How models are trained.")]
Recipe = Annotated[str | None, typer.Option("--recipe", metavar="FILE", help="JSON file with the recipe of training.")]
Forget = Annotated[
    list[str] | None,
    typer.Option(
        "--forget",
        metavar="SELECTION",
        help="class=0, class=0:0.5 (half of it), random=0.1, random=500, random=100/8 (eight a request), ids=FILE or owner=ID; "
        "once more for each further request.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME.FIELD=VALUE", help="A setting of a part, of recipe or policy; repeatable."),
]
Search = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        metavar="METHOD.FIELD=A,B",
        help="Values of a method's setting; the least error on validation records decides.",
    ),
]
SettingsFile = Annotated[
    str | None,
    typer.Option("--settings", metavar="FILE", help="JSON file with these choices, or a preset; options win."),
]
StoreFolder = Annotated[Path, typer.Option("--store", metavar="DIR", help="Where models and scores are kept.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 and so on.")]
Threads = Annotated[
    str | None, typer.Option("--threads", metavar="N", help="Threads of torch; results depend on them.")
]
Workers = Annotated[
    int,
    typer.Option("--workers", metavar="N", min=1, help="Processes that work side by side, with --threads (or 1) each."),
]
Backend = Annotated[
    str,
    typer.Option("--backend", metavar="NAME", help="Whose processes: processes (this machine's) or ray (a cluster's)."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed.")]
TrainIds = Annotated[
    str | None,
    typer.Option(
        "--train-ids",
        metavar="FILE",
        help="Ids that the weights were trained on, one a line (default: all training records of the data).",
    ),
]
WeightsOut = Annotated[Path, typer.Option("--out", metavar="FILE", help="Safetensors file to write.")]


@dataclass(frozen=True)
class Session:
    """What the whole command line said, for the record, and whether details are wanted."""

    words: tuple[str, ...] = ()
    verbose: bool = False

    @property
    def command(self) -> str:
        return shlex.join(["palimpsest", *self.words])


session: ContextVar[Session] = ContextVar("palimpsest_session")
"""The command line that is being run; `main` sets it."""


def choose(given: Mapping[str, Any], settings: str | None, sets: list[str] | None, preset: str | None) -> Any:
    """The choices that options and settings file make together, and the names that `--set` names.

    preset: what to start from where neither data nor a settings file are given.
    """
    from palimpsest import presets
    from palimpsest.options import assignments

    values = {name: value for name, value in given.items() if value}
    for name in ("unlearn", "attack", "verify", "defend"):
        if given.get(name) is not None:
            values[name] = [part for part in given[name].split(",") if part.strip()]
    if "recipe" in values:
        values["recipe"] = presets.read_recipe(values["recipe"])
    values["settings"] = assignments(sets or [])
    chosen = presets.choices(values, "--")
    if settings is not None:
        base = presets.read(settings)
        chosen = chosen.over(base)
        if base.tuned and not chosen.tuned:
            say(
                "Some of these settings are not as tuning found them, or were tuned for another case; they are taken as they are."
            )
    elif preset and chosen.data is None:
        chosen = chosen.over(presets.read(preset))
    return chosen, tuple(values["settings"])


def say(text: str) -> None:
    """One line of progress on standard output."""
    from palimpsest.cli.present import console

    console().print(text, style="dim", soft_wrap=True)


@contextmanager
def progress() -> Iterator[None]:
    """Bars on the terminal while this block runs."""
    from palimpsest.cli.present import console
    from palimpsest.progress import shown

    with shown(console(stderr=True)):
        yield
