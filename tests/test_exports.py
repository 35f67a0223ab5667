"""What the package promises by name is there, is the thing itself, and is listed once."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
from pathlib import Path

import pytest

import palimpsest


@pytest.mark.parametrize("name", palimpsest.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(palimpsest, name)
    assert name in dir(palimpsest)
    if name in palimpsest._PLACES:
        module, _, attribute = palimpsest._PLACES[name].partition(":")
        assert value is getattr(importlib.import_module(f"palimpsest.{module}"), attribute)
        assert value.__doc__, f"{name} is not documented"


def test_the_lists_agree() -> None:
    assert sorted(palimpsest.__all__) == sorted({*palimpsest._PLACES, "__version__"})
    assert len(set(palimpsest.__all__)) == len(palimpsest.__all__)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(palimpsest.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: f"{str(node.module).removeprefix('palimpsest.')}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == palimpsest._PLACES


def test_no_public_name_hides_a_module() -> None:
    """`palimpsest.audit` must stay the package of that name."""
    folder = Path(palimpsest.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    assert modules.isdisjoint(palimpsest._PLACES)


def test_version_is_the_distribution_s() -> None:
    assert palimpsest.__version__ == importlib.metadata.version("palimpsest-ml")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'adit'"):
        palimpsest.adit  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        from palimpsest import adit  # type: ignore[attr-defined]  # noqa: F401
