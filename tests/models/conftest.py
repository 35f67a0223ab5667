"""Checkpoints written once, and a place without transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.checkpoints import tiny

Made = Callable[..., Path]


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A checkpoint with these sizes, written once."""
    known: dict[str, Path] = {}

    def make(**changes: Any) -> Path:
        key = repr(sorted(changes.items()))
        if key not in known:
            known[key] = tiny(tmp_path_factory.mktemp("checkpoint") / "vit", **changes)
        return known[key]

    return make
