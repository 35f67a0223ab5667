"""Docs say what the code does: every method, option and link in them is real, and none is missing."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

from palimpsest.catalog import FOLDERS, document, members

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
EVERYTHING = [(kind, name, cls) for kind in FOLDERS if kind != "studies" for name, cls in members(kind).items()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        there = page if not target else page.parent / target
        heads = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(block)


def test_the_guides_audit_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## From Python.*?```python\n(.*?)```", guide, re.DOTALL)
    exec(compile(code, "guide.md", "exec"), {})
    assert "finetune" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()


def test_the_page_of_methods_is_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "methods.py"))["page"]()
    assert made == (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), "run `make docs`"


@pytest.mark.parametrize("name", sorted(members("unlearners")))
def test_a_method_says_whose_it_is_what_it_costs_and_when_to_use_it(name: str) -> None:
    cls = members("unlearners")[name]
    assert all((cls.paper, cls.spends, cls.use)), "set paper, spends and use"


@pytest.mark.parametrize(("kind", "name", "cls"), EVERYTHING, ids=lambda value: value if isinstance(value, str) else "")
def test_everything_is_documented(kind: str, name: str, cls: type) -> None:
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "the docstring is the generated one"
    assert getattr(cls, "about", ""), "`palimpsest list` has a line for it"
    for field in document(cls):
        assert field["doc"], f"{name}.{field['name']} has no documentation"
        assert field["source"], f"{name}.{field['name']} does not say where its default comes from"


def test_every_unlearner_is_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in members("unlearners"))


def test_layout_of_the_design_page() -> None:
    """Every module and package at the top is in the table of docs/design.md, and nothing else is."""
    table = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## Controls")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    named = {entry.rstrip("/") for row in rows for entry in re.findall(r"`([^`]+)`", row)}
    package = ROOT / "src" / "palimpsest"
    real = {path.name for path in package.glob("*.py") if path.name != "__init__.py"}
    real |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert real - named == set(), "not in the layout table"
    assert {name for name in named if not (package / name).exists()} == set(), "in the layout table, but not there"
