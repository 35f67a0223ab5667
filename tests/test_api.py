"""The Python interface: the examples in docstrings run, the package's own first."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = ("palimpsest", "palimpsest.options", "palimpsest.errors", "palimpsest.catalog")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(name)
    names = {**vars(module), "folder": tmp_path} if name != "palimpsest" else {"folder": tmp_path}
    failed, tried = doctest.testmod(module, extraglobs=names)
    assert tried
    assert failed == 0


def test_importing_the_package_is_quick() -> None:
    """Nothing heavy is imported before a name is asked for, and asking for one name imports what it needs."""
    code = (
        "import sys, palimpsest; assert 'torch' not in sys.modules; palimpsest.BadInput;"
        "assert 'torch' not in sys.modules; palimpsest.Store; assert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_plan_takes_the_words_of_the_command_line(tmp_path: Path) -> None:
    import palimpsest

    words = {"data": "digits", "model": "convnet", "forget": ["class=1"], "unlearn": ["salun"], "attack": ["uma"]}
    plan = palimpsest.plan(**words, seeds=2, settings={"salun": {"lr": "0.5"}, "model": {"width": 2}}, threads=1)
    assert plan.seeds == (0, 1)
    assert plan.unlearners == (palimpsest.make("unlearners", "salun", {"lr": 0.5}),)
    assert plan.model == palimpsest.make("models", "convnet", {"width": 2})
    with pytest.raises(palimpsest.BadInput, match="did you mean 'seeds'"):
        palimpsest.plan(**words, seedz=2)
    with pytest.raises(palimpsest.BadInput, match="finetune"):
        palimpsest.plan(**words, settings={"finetune": {"lr": 0.5}})
