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


def tiny(folder: Path, *more: str) -> int:
    """A tiny audit whose store and output lie in `folder`; later options win over TINY's."""
    return main(["audit", *TINY, "--store", str(folder / "store"), "--out", str(folder / "out"), *more])
