"""Text as tokens: a tokenizer learnt or opened, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from palimpsest.data._tokens import tokenizer_of
from palimpsest.data.table import Table
from palimpsest.errors import BadInput
from palimpsest.language import TOKENS
from tests.texts import posed, texts


def test_a_text_can_be_read_back_and_ends_with_the_prompt(tmp_path: Path) -> None:
    split = Table(str(texts(tmp_path)), tokens=60, vocabulary=300, prompt=" Verdict:").load()
    assert (split.kind, split.shape, split.classes) == ("tokens", (60,), ("bad", "good"))
    tokenizer, tokens = tokenizer_of(split.train.context), split.train.raw(TOKENS)
    assert tokens.dtype == torch.int32
    for name, row in zip(split.train.ids.tolist(), tokens, strict=True):
        said = tokenizer.decode(row[row >= 0].tolist())
        assert said.startswith("this film number ")
        assert said.endswith(" Verdict:"), name
    assert split.train.context["answers"] == [tokenizer.token_to_id(f"<|{name}|>") for name in ("bad", "good")]


def test_of_a_long_text_the_wanted_end_is_kept(tmp_path: Path) -> None:
    start, end = (
        Table(str(texts(tmp_path)), tokens=12, vocabulary=300, prompt="?", keep=keep).load()
        for keep in ("start", "end")
    )
    tokenizer = tokenizer_of(start.train.context)
    one, other = (tokenizer.decode(split.train.raw(TOKENS)[0].tolist()) for split in (start, end))
    assert one.startswith("this")
    assert not other.startswith("this")
    assert one.endswith("?")
    assert other.endswith("?")


def test_the_learnt_tokenizer_knows_validation_texts_only(tmp_path: Path) -> None:
    """So that a forgotten record leaves nothing in it."""
    path = texts(tmp_path)
    before = Table(str(path), tokens=40, vocabulary=320).load()
    rows = path.read_text().splitlines()
    place = int(before.train.ids[0].rsplit("/", 1)[1])
    rows[place + 1] = '"zyzzyva zyzzyva zyzzyva zyzzyva zyzzyva zyzzyva",bad'
    path.write_text("\n".join(rows))
    after = Table(str(path), tokens=40, vocabulary=320).load()
    assert before.train.context == after.train.context
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tokens": 2, "prompt": " a long question here"}, "table.tokens"),
        ({"tokens": 40, "answers": "yes"}, "table.answers"),
        ({"tokens": 40, "tokenizer": "./nowhere"}, "./nowhere"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, fields: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Table(str(texts(tmp_path)), **fields).load()


def test_two_classes_with_one_answer_are_refused(tmp_path: Path) -> None:
    saved = tmp_path / "tokenizer.json"
    saved.write_text(str(tokenizer_of(posed()[1].train.context).to_str()))
    with pytest.raises(BadInput, match="another answer"):
        Table(str(texts(tmp_path)), tokens=40, tokenizer=str(tmp_path), answers="large good,large bad").load()


def test_what_looks_like_an_answer_in_a_text_is_text(tmp_path: Path) -> None:
    path = texts(tmp_path)
    path.write_text(path.read_text().replace("was good", "was <|good|>"))
    split = Table(str(path), tokens=60, vocabulary=300).load()
    assert not set(split.train.raw(TOKENS).flatten().tolist()) & set(split.train.context["answers"])


def test_tokens_in_a_memory_map_are_the_same(tmp_path: Path) -> None:
    path = str(texts(tmp_path))
    kept = Table(path, tokens=40, vocabulary=320).load()
    for _ in range(2):
        mapped = Table(path, tokens=40, vocabulary=320, memory_limit=0, cache=str(tmp_path / "cache")).load()
        assert mapped.fingerprint == kept.fingerprint
        assert mapped.train.context == kept.train.context
