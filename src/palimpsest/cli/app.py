"""The commands together: words are read, one command runs. Whatever is refused is refused in one line, with exit 2."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from palimpsest.cli import keep, look, studies, work
from palimpsest.cli.words import Session, session
from palimpsest.errors import BadInput, PalimpsestError, UnknownName

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer's error for a command line that it cannot read."""

app = typer.Typer(
    name="palimpsest",
    add_completion=False,
    rich_markup_mode=None,
    help="Removes data from trained models, then tries to read what was scraped off.",
    epilog="Exit status: 0 done; 2 bad input; 3 a required verdict was missed; 130 stopped.",
)
app.add_typer(keep.stores, name="store")
app.command("audit")(work.audit)
app.command("train")(work.train)
app.command("unlearn")(work.unlearn)
app.command("tune")(work.tune)
app.command("reproduce")(studies.reproduce)
app.command("list")(look.list_)
app.command("show")(look.show)
app.command("report")(look.report)
app.command("compare")(look.compare)
app.command("check")(look.check)
app.command("purge")(keep.purge)


@app.callback(invoke_without_command=True)
def start(
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Every reason and warning; tracebacks of errors. Goes anywhere.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from palimpsest import __version__

        typer.echo(__version__)
        raise typer.Exit


def run(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status. A fault of ours is not caught: it shows its traceback."""
    given = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in given
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # my_module:MyClass may lie in the current folder
    token = session.set(Session(tuple(given), verbose))
    try:
        return _invoked([word for word in given if word != "--verbose"] or ["--help"])
    except USAGE_ERROR as error:
        return _stop(_usage(error), 2)
    except PalimpsestError as error:
        return _stop(str(error), 2, verbose)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        do = "free some space, then run the same command again to go on"
        return _stop(f"{error.filename or 'disk'}: got {error.strerror}, expected room to write; {do}", 2, verbose)
    finally:
        session.reset(token)


def _invoked(words: list[str]) -> int:
    """Typer's own `main` would turn errors and Ctrl-C into words and exits of its own; this does not."""
    command = typer.main.get_command(app)
    _refuse_repeated(command, words)
    try:
        with command.make_context("palimpsest", words) as context:
            command.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    return 0


def _refuse_repeated(command: Any, words: Sequence[str]) -> None:
    """Raises BadInput where an option that takes names separated by commas is given again: the first names would be lost without a
    word. Of other options the last counts, as on any command line."""
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    given = [word.split("=", 1)[0] for word in rest]
    for option in command.params:
        times = sum(given.count(name) for name in option.opts)
        if times > 1 and "," in (option.metavar or "") and not option.multiple:
            raise BadInput(option.opts[0], got=f"{times} of them", expected="one", do="separate names by commas")


def _stop(text: str, status: int, verbose: bool = False) -> int:
    if verbose:
        traceback.print_exc()
    typer.echo(" ".join(text.split()), err=True)
    return status


def _usage(error: Any) -> str:
    """A command line that cannot be read, in our form: got, expected, what to do."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "palimpsest"
    do = f"see `{path} --help`"
    if hasattr(error, "option_name") and context:
        known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
        return str(UnknownName(path, got=error.option_name, known=known, do=do))
    if str(error.message).startswith("No such command") and context:
        return str(UnknownName(path, got=str(error.message).split("'")[1], known=context.command.commands, do=do))
    return str(BadInput(path, got=error.format_message().rstrip("."), expected="what the help shows", do=do))
