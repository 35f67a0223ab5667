"""Memorisation accuracy and extraction likelihood of a model that is a table: each token is followed by one other."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.case import Case
from palimpsest.data._tokens import PADDING
from palimpsest.language import TOKENS, Language
from palimpsest.learn.base import Trained
from palimpsest.types import Examples, ForgetRequest, Split
from palimpsest.verify.memorisation import Memorisation

VOCABULARY, PROMPT = 10, [9, 9]
COUNTING = [0, 1, 2, 3, 4, 5, 6, 7]
STRAYING = [0, 1, 2, 5, 6, 7, 1, 3]
SHORT = [4, 5, 7]


class Counting(nn.Module):
    """After each token comes the next number, and 0 after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.eye(VOCABULARY).roll(1, 1))

        def read(inputs_embeds: Tensor, past_key_values: None, use_cache: bool) -> SimpleNamespace:
            return SimpleNamespace(past_key_values=None, last_hidden_state=inputs_embeds)

        self.inner = SimpleNamespace(transformer=read, lm_head=lambda states: states @ self.table)

    def embed(self, tokens: Tensor) -> Tensor:
        return F.one_hot(tokens.clamp_min(0), VOCABULARY).float()

    def both(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        words = self.embed(tokens) @ self.table
        return words[:, -1, :2], words


def situation(train: list[list[int]], test: list[list[int]]) -> Case:
    """Texts of both answers are kept; `train`, after them, is forgotten."""

    def part(texts: list[list[int]], name: str) -> Examples:
        width = len(COUNTING) + len(PROMPT)
        rows = [[*text, *PROMPT] + [PADDING] * (width - len(text) - len(PROMPT)) for text in texts]
        context = {"prompt": PROMPT, "answers": [0, 1], "vocabulary": VOCABULARY}
        ids = [f"{name}{place}" for place in range(len(texts))]
        return Examples.of({TOKENS: torch.tensor(rows)}, torch.arange(len(texts)) % 2, ids, context=context)

    known, unseen = part([COUNTING, COUNTING, *train], "train"), part(test, "test")
    domain = torch.tensor(-1.0), torch.tensor(VOCABULARY - 1.0)
    split = Split("hand", TOKENS, known, known.take([]), unseen, ("a", "b"), "f", domain)
    task = Language.posed(split, VOCABULARY, 0.0, 1.0)
    trained = Trained(Counting().eval(), task, known.ids)
    return Case(split, (ForgetRequest(known.ids[2:], "some"),), trained, trained)


def values(case: Case, verifier: Memorisation) -> dict[str, float]:
    return {measure.name: measure.value for measure in verifier.measure(verifier.verify(case))}


def test_shares_are_those_counted_by_hand() -> None:
    """The straying text goes on as the table does in 4 of 7 places, and of what the table writes after its first 0, 1, 2, 5, which
    is 6, 7, 8, 9, one pair of three stands in the rest, 6, 7, 1, 3. All of the counting text is said and written, to the end. The
    prompt is no part of either."""
    case = situation([STRAYING, COUNTING], [STRAYING, [3, 4, 5, 6, 7, 8, 9, 0]])
    verifier = Memorisation(n=2, places=1)
    scores = verifier.verify(case)
    told = dict(zip(scores.ids.tolist(), zip(scores["said"], scores["extracted"], strict=True), strict=True))
    assert told["train2"] == pytest.approx((4 / 7, 1 / 3))
    assert told["train3"] == pytest.approx((1.0, 1.0))
    assert values(case, verifier) == pytest.approx(
        {
            "memorisation_accuracy": (4 / 7 + 1) / 2,
            "extraction_likelihood": (1 / 3 + 1) / 2,
            "unseen_memorisation_accuracy": (4 / 7 + 1) / 2,
            "unseen_extraction_likelihood": (1 / 3 + 1) / 2,
        }
    )


def test_extraction_is_a_mean_over_places() -> None:
    """After 0, 1 the table writes 2, 3, 4, 5, 6, 7, of whose five pairs two stand in 2, 5, 6, 7, 1, 3: 5, 6 and 6, 7. After
    0, 1, 2, 5, 6 it writes 7, 8, 9, of which none stands in 7, 1, 3."""
    case = situation([STRAYING], [COUNTING, COUNTING])
    scores = Memorisation(n=2, places=2).verify(case)
    assert scores["extracted"][scores.ids == "train2"] == pytest.approx((2 / 5 + 0) / 2)


def test_a_text_too_short_to_go_on_from_is_said_but_not_extracted() -> None:
    """4, 5, 7: one of two tokens is said; no place leaves it a pair to write."""
    case = situation([SHORT, COUNTING], [COUNTING, SHORT])
    scores = Memorisation(n=2, places=1).verify(case)
    mine = scores.ids == "train2"
    assert scores["said"][mine] == pytest.approx(0.5)
    assert np.isnan(scores["extracted"][mine]).all()
    found = values(case, Memorisation(n=2, places=1))
    assert found["memorisation_accuracy"] == pytest.approx(0.75)
    assert found["extraction_likelihood"] == pytest.approx(1.0)
    alone = replace(case, requests=(ForgetRequest(np.array(["train2"]), "one"),))
    assert "extraction_likelihood" not in values(alone, Memorisation(n=2, places=1))
