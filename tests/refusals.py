"""A folder full of bad input, and what a refusal must look like; two files of tests share them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from palimpsest.data.digits import Digits
from palimpsest.learn.loop import Meter

OWN_MODELS = """
import torch
from torch import nn

def wider(shape, classes, width): return nn.Linear(64, classes)
def placed(shape, /): return nn.Linear(64, 10)
def raises(shape): raise KeyError("depth")
def nothing(): return None
def bare(): return nn.Flatten()
def eleven(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))
def narrow(classes): return nn.Sequential(nn.Flatten(), nn.Linear(63, classes))
def masked(classes):
    made = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, classes))
    made.register_buffer("mask", torch.full((2,), -torch.inf))
    return made

class Asserts(nn.Linear):
    def __init__(self): super().__init__(64, 10)
    def forward(self, x): assert False, "not today"

class Twice(nn.Linear):
    def __init__(self): super().__init__(64, 10)
    def forward(self, x): return (super().forward(x.flatten(1)),) * 2

number = 3
module = nn.Linear(2, 2)
"""
"""What somebody hands in as a model."""


class Never:
    """Something that no weights file may hold."""


def table(**columns: list[Any]) -> str:
    """CSV text of 40 rows: the columns given, and a feature."""
    columns = {"feature": [str(i / 7) for i in range(40)], **columns}
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n"


@cache
def trained_on() -> tuple[str, ...]:
    """The ids of all records that the commands of the tests train on."""
    return tuple(Digits(limit=200).load().train.ids.tolist())


def furnished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files that the commands of the tests name, in which nothing may be trained."""

    def forbidden(*args: object, **named: object) -> None:
        raise AssertionError("something was trained before the refusal")

    monkeypatch.setattr(Meter, "step", forbidden)
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    classes = [i % 2 for i in range(40)]
    files: dict[str, str] = {
        "none.txt": "\n\n",
        "stranger.txt": "digits/9999\n",
        "everything.txt": "\n".join(trained_on()),
        "one_class.csv": table(label=[1] * 40),
        "good.csv": table(label=classes),
        "nan.csv": table(label=classes, other=["nan" if i == 3 else i for i in range(40)]),
        "inf.csv": table(label=classes, other=["inf" if i == 3 else i for i in range(40)]),
        "unlabelled.csv": table(),
        "broken.json": "{",
        "list.json": "[]",
        "wrong_field.json": json.dumps({"seedz": 3}),
        "wrong_type.json": json.dumps({"data": "digits", "seeds": "many"}),
        "wrong_part.json": json.dumps({"data": "digits", "settings": {"salum": {"lr": 1}}}),
        "text.safetensors": "no weights",
        "own_models.py": OWN_MODELS,
        "own_broken.py": "1 / 0",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    torch.save({"model": Never()}, tmp_path / "more.pt")
    torch.save({"weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    for index in range(24):
        side = 8 if index else 9
        picture = Image.fromarray(np.full((side, side), index, dtype=np.uint8))
        place = tmp_path / "pictures" / "train" / ("cat", "dog")[index % 2] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], status: int, *said: str) -> str:
    """The one line on standard error."""
    error = capsys.readouterr().err
    assert status == 2, error
    assert error.count("\n") == 1, error
    assert error.endswith("\n"), error
    for word in ("got", "expected", *said):
        assert word in error, error
    return error
