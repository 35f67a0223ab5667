"""Text as tokens: what a language model reads. A tokenizer is opened, or learnt from records that nothing is trained on."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from palimpsest.data._connection import hub_folder
from palimpsest.data._inputs import Reader, texts_of
from palimpsest.errors import BadInput, told
from palimpsest.store import digest
from palimpsest.types import Array, Ids

Keep = Literal["start", "end"]

FILE = "tokenizer.json"
PADDING = -1
"""What stands after a record's last token: no token of any vocabulary."""


@dataclass(frozen=True)
class TokenReader(Reader):
    """int32 token ids, shape (tokens,): the text's, then the prompt's, then PADDING.

    Of a text that is too long the start or the end is kept, and the prompt in any case: a model answers at its last token.
    """

    column: str = ""
    keep: Keep = "start"
    tokenizer: Any = field(default=None, repr=False, compare=False)

    def decode(self, part: str, rows: Array, ids: Ids) -> Array:
        texts = texts_of(self.source, part, rows, ids, self.column)
        return as_tokens(self.tokenizer, texts, self.shape[0], self.context["prompt"], self.keep)


def as_tokens(tokenizer: Any, texts: Sequence[str], length: int, prompt: Sequence[int], keep: Keep) -> Array:
    """int32, shape (texts, length): each text's tokens, then the prompt's, then PADDING."""
    room = length - len(prompt)
    found = np.full((len(texts), length), PADDING, dtype=np.int32)
    for row, read in zip(found, tokenizer.encode_batch(list(texts)), strict=True):
        kept = [*(read.ids[:room] if keep == "start" else read.ids[-room:]), *prompt]
        row[: len(kept)] = kept
    return found


def opened(path: str, learn_from: Iterable[str], vocabulary: int, answers: Sequence[str]) -> Any:
    """The tokenizer in a folder or of a hub name; without a path a byte-level BPE, learnt from these texts.

    The latter has a token of its own for each answer. Nothing is added to or cut from an encoded text. Raises BadInput where the
    package tokenizers is missing, and for a tokenizer that cannot be read.
    """
    kit = _kit()
    if not path:
        return _learnt(kit, learn_from, vocabulary, answers)
    try:
        found = kit.Tokenizer.from_file(str(_file(path)))
    except Exception as error:  # the package raises nothing narrower
        raise BadInput(path, got=told(error), expected=f"a {FILE} of the package tokenizers") from error
    found.no_padding()
    found.no_truncation()
    found.post_processor = kit.processors.Sequence([])
    found.encode_special_tokens = True  # what looks like one in a text is text
    return found


def known(path: str) -> str:
    """What tokens depend on beside the texts: the tokenizer's file, or else the package that learns one."""
    package = f"tokenizers {_kit().__version__}"
    return digest([package, hashlib.sha256(_file(path).read_bytes()).hexdigest()]) if path else package


def _file(path: str) -> Path:
    folder = hub_folder(path, (FILE,), FILE, f"a folder with a {FILE}, or a hub name")
    if not (folder / FILE).is_file():
        raise BadInput(path, got=f"a folder without {FILE}", expected="one with it", do="write it by save_pretrained")
    return folder / FILE


def context(tokenizer: Any, prompt: str, answers: Sequence[str]) -> dict[str, Any]:
    """What a task must know of the tokens, JSON-ready: the tokenizer, the prompt's tokens and each class's answer.

    An answer that is no token of its own is told by its first one after a blank. Raises BadInput where two classes have the same.
    """
    found = [_answer(tokenizer, answer) for answer in answers]
    if len(set(found)) != len(found):
        twice = next(name for name, token in zip(answers, found, strict=True) if found.count(token) > 1)
        got = f"{twice!r}, whose first token is that of another answer"
        raise BadInput("answers", got=got, expected="words whose first tokens differ", do="name others")
    return {
        "tokenizer": json.loads(tokenizer.to_str()),
        "vocabulary": tokenizer.get_vocab_size(),
        "prompt": tokenizer.encode(prompt, add_special_tokens=False).ids if prompt else [],
        "answers": found,
    }


def tokenizer_of(context: dict[str, Any] | Any) -> Any:
    """The tokenizer that records were read with, from their context."""
    found = _kit().Tokenizer.from_str(json.dumps(context["tokenizer"]))
    found.encode_special_tokens = True
    return found


def _answer(tokenizer: Any, answer: str) -> int:
    own = tokenizer.token_to_id(_special(answer))
    if own is not None:
        return int(own)
    tokens = tokenizer.encode(" " + answer, add_special_tokens=False).ids
    if not tokens:
        raise BadInput("answers", got=repr(answer), expected="words that the tokenizer can read")
    return int(tokens[0])


def _special(answer: str) -> str:
    return f"<|{answer}|>"


def _learnt(kit: Any, texts: Iterable[str], vocabulary: int, answers: Sequence[str]) -> Any:
    """A byte-level BPE (as GPT-2's): every text can be read."""
    found = kit.Tokenizer(kit.models.BPE())
    found.pre_tokenizer = kit.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = kit.decoders.ByteLevel()
    trainer = kit.trainers.BpeTrainer(
        vocab_size=vocabulary,
        show_progress=False,
        initial_alphabet=sorted(kit.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[_special(answer) for answer in answers],
    )
    found.train_from_iterator(texts, trainer)
    found.encode_special_tokens = True
    return found


def _kit() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError:
        do = "pip install 'palimpsest-ml[text]'"
        raise BadInput("tokens", got="no package tokenizers", expected="it", do=do) from None
