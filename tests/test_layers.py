"""A module imports only from modules above it in the order below: the design, held by a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import palimpsest

ORDER = (
    (
        "types",
        "errors",
        "rng",
        "bounds",
        "catalog",
        "disk",
        "store",
        "progress",
        "workers",
    ),  # their own order is FOUNDATION
    ("task",),
    ("language", "reconstruction"),
    ("data",),
    ("models",),
    ("learn",),
    ("forget",),
    ("unlearn",),
    ("case",),
    ("threat",),
    ("measures",),
    ("attack", "verify"),
    ("defend",),
    ("record",),
    ("audit",),
    ("report",),
    ("pipeline",),
    ("presets",),
    ("options",),
    ("steps", "purge", "tuning"),
    ("contract",),
    ("studies",),
    ("reproduce",),
    ("cli", "service"),
)
"""Entries of one line do not import each other; a later line imports from earlier ones."""
FOUNDATION = ("errors", "types", "rng", "bounds", "catalog", "disk", "store", "progress", "workers")


def ranks() -> dict[str, tuple[int, int]]:
    """Entry → (line, place within the line); equal lines differ in place only for the foundation."""
    found = {name: (line, 0) for line, names in enumerate(ORDER) for name in names}
    return found | {name: (0, place) for place, name in enumerate(FOUNDATION)}


def imports(source: str) -> Iterator[str]:
    """Entries of the package that this source imports, inside functions too; what is only for type checkers is left out."""
    tree = ast.parse(source)
    ignored: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            ignored.update(inner for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if node in ignored:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"line {node.lineno}: a relative import; spell it out")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "palimpsest" and rest not in ("", "__version__"):
                yield rest.partition(".")[0]


def violations(root: Path) -> list[str]:
    """What breaks the order in the package at `root`, one line each."""
    rank, found = ranks(), []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        entry = parts[0]
        if entry in ("__init__", "__main__"):
            continue
        if entry not in rank:
            found.append(f"{'.'.join(parts)}: give {entry!r} a place in the order")
            continue
        for other in dict.fromkeys(imports(path.read_text(encoding="utf-8"))):
            if other != entry and rank.get(other, (99, 0)) >= rank[entry]:
                found.append(f"{'.'.join(parts)} imports {other}")
    return found


def test_every_module_imports_only_from_above() -> None:
    root = Path(palimpsest.__file__).parent
    assert len(list(root.rglob("*.py"))) > 30, "the package was not found"
    assert violations(root) == []


def test_the_package_itself_imports_nothing_heavy_behind_ones_back() -> None:
    """`import palimpsest` is what every submodule import runs first: whatever it imports, all modules import."""
    source = (Path(palimpsest.__file__).parent / "__init__.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    outer = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    named = [alias.name for node in outer for alias in node.names if getattr(node, "module", "") != "__future__"]
    assert not any(str(getattr(node, "module", "")).startswith("palimpsest") for node in outer), named


BROKEN = {
    "errors.py": ("from palimpsest.types import Batch", "errors imports types"),
    "attack/uma.py": ("from palimpsest.verify.base import Verifier", "attack.uma imports verify"),
    "verify/gap.py": ("import palimpsest.attack.base", "verify.gap imports attack"),
    "attack/deep/one.py": ("def f():\n    from palimpsest import defend", "attack.deep.one imports defend"),
    "learn/loop.py": ("if True:\n    from palimpsest.pipeline import run", "learn.loop imports pipeline"),
    "cli.py": ("from palimpsest.service import app", "cli imports service"),
    "service/app.py": ("import palimpsest.cli as c", "service.app imports cli"),
    "newcomer.py": ("", "newcomer: give 'newcomer' a place in the order"),
    "audit/policy.py": ("from palimpsest.newcomer import x", "audit.policy imports newcomer"),
    "task.py": ("from palimpsest import Store", "task imports Store"),  # the public name would hide where it lives
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_caught(tmp_path: Path, name: str) -> None:
    source, expected = BROKEN[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert violations(tmp_path) == [expected]


def test_what_the_rule_allows_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "uma.py").write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nimport torch\n"
        "from palimpsest.attack.base import Attack\nfrom palimpsest.threat import View\n"
        "if TYPE_CHECKING:\n    from palimpsest.cli import app\n"
    )
    (tmp_path / "store.py").write_text("from palimpsest import errors, types\n")
    assert violations(tmp_path) == []


def test_a_relative_import_is_caught(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("from .cli import app\n")
    with pytest.raises(AssertionError, match="relative import"):
        violations(tmp_path)
