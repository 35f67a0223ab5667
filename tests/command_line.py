"""The command line in this process, on audits that are as small as they can be."""

from __future__ import annotations

from pathlib import Path

from palimpsest.cli import main

TINY = [
    "--data",
    "digits",
    "--limit",
    "200",
    "--model",
    "linear",
    "--set",
    "recipe.epochs=2",
    "--forget",
    "class=0",
    "--unlearn",
    "retrain",
    "--attack",
    "confidence_membership",
    "--verify",
    "accuracy",
    "--seeds",
    "1",
    "--controls",
    "1",
    "--threads",
    "1",
]
"""Options of an audit that takes about a second."""


def changed(*options: str) -> list[str]:
    """TINY with other options in the place of its own, or beside them."""
    kept = list[str]()
    for name, value in zip(TINY[::2], TINY[1::2], strict=True):
        given = name in options and name != "--set"
        if not given and not ("--settings" in options and name == "--data"):
            kept += [name, value]
    return [*kept, *options]


def tiny(folder: Path, *more: str) -> int:
    """A tiny audit whose store and output lie in `folder`, with other options than TINY's."""
    return main(["audit", *changed(*more), "--store", str(folder / "store"), "--out", str(folder / "out")])
