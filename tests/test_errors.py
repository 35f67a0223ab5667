"""Messages say what was got, what was expected and what to do."""

from __future__ import annotations

import inspect

import pytest

from palimpsest import errors
from palimpsest.errors import BadInput, PalimpsestError, UnknownName


def test_bad_input_is_one_line_with_got_expected_and_do() -> None:
    error = BadInput("--seeds", got=0, expected="at least 1", do="leave it out for 3")
    assert str(error) == "--seeds: got 0, expected at least 1; leave it out for 3"
    assert str(BadInput("--seeds", got=0, expected="at least 1")) == "--seeds: got 0, expected at least 1"


def test_a_long_value_is_cut() -> None:
    text = str(BadInput("x", got="y" * 5000, expected="less"))
    assert len(text) < 500
    assert "y…, expected less" in text


def test_unknown_name_gives_the_nearest_match_or_else_the_advice() -> None:
    assert str(UnknownName("model", got="convnett", known=["mlp", "convnet"])).endswith("did you mean 'convnet'?")
    far = str(UnknownName("model", got="zzz", known=["mlp", "convnet"], do="see palimpsest list"))
    assert far == "model: got 'zzz', expected one of convnet, mlp; see palimpsest list"


@pytest.mark.parametrize(
    "name", [n for n, v in vars(errors).items() if inspect.isclass(v) and issubclass(v, Exception)]
)
def test_every_error_derives_from_the_one_that_the_command_line_catches(name: str) -> None:
    assert issubclass(getattr(errors, name), PalimpsestError)
