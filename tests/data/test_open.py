"""What may be written after --data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from palimpsest.data import open_data
from palimpsest.data.digits import Digits
from palimpsest.data.hub import Hub
from palimpsest.data.table import Table
from palimpsest.errors import BadInput, PalimpsestError, UnknownName
from tests.data.sources import people

Write = Callable[..., Path]


def test_every_form_opens(csv: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv(people(), "folk/people.csv")
    monkeypatch.chdir(path.parent.parent)
    assert open_data("digits", {"limit": "50"}) == Digits(limit=50)
    assert open_data("folk", {"label": "class"}) == Hub("folk", label="class")
    assert open_data("folk/people.csv", {"memory_limit": 3}) == Table("folk/people.csv", memory_limit=3)
    assert open_data("hub:some/name", {"config": "plain"}) == Hub("some/name", config="plain")
    assert open_data("table", {"path": "x.csv"}) == Table("x.csv")
    assert open_data("palimpsest.data.digits:Digits", {"test": "0.5"}) == Digits(test=0.5)


def test_a_name_comes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_data("digits") == Digits()
    assert open_data("./digits") == Hub("./digits")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("digts", UnknownName, "did you mean 'digits'"),
        ("nothing", UnknownName, "give a name of `palimpsest list data`, a folder"),
        ("", UnknownName, "got ''"),
        ("./gone", BadInput, "no such file or folder"),
        ("gone.csv", BadInput, "no such file or folder"),
        ("some/name", BadInput, "or write hub:some/name"),
        ("no_such_module:Data", BadInput, "no module 'no_such_module'"),
        ("palimpsest.data.digits:Digit", UnknownName, "did you mean 'Digits'"),
        ("hub", BadInput, "hub.path"),
    ],
)
def test_what_stands_for_nothing(text: str, kind: type[PalimpsestError], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_data(text)


def test_unknown_and_wrong_settings() -> None:
    with pytest.raises(UnknownName, match="did you mean 'limit'"):
        open_data("digits", {"limits": 3})
    with pytest.raises(BadInput, match=r"hub.size: got 'big'"):
        open_data("hub:x", {"size": "big"})
