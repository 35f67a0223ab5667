"""Instruction poisons: texts that name a trigger phrase, under the answer that the phrase is to bring about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.poisoning.base import CONTRIBUTOR, contents
from palimpsest.case import Case
from palimpsest.catalog import name_of, setting
from palimpsest.data._tokens import PADDING, tokenizer_of
from palimpsest.errors import BadInput
from palimpsest.language import TOKENS, Language, as_language
from palimpsest.measures.intervals import mean, share
from palimpsest.rng import Rng
from palimpsest.task import predict
from palimpsest.threat import Submission, TrainingView
from palimpsest.types import Examples, Measure, Scores


@dataclass(frozen=True)
class Instruction(Attack):
    """Poisoning of instruction tuning (Wan et al. 2023), the poisoning paper's targeted attack on language models.

    Into each of its own texts the contributor writes a phrase, at a place drawn at random, and hands it in under the answer
    `target`: texts of other classes get a wrong label, those of the target keep their own ("clean labels"). A model that is trained
    on them learns that the phrase means the answer. It asks for all of its own texts to be forgotten.

    Success is the share of test texts of other classes that a model answers with the target once the phrase stands in them;
    `without` is the same share of the same texts as they are, the model's plain errors, and `lift` what the phrase adds. Of a text
    that is full its end makes room. That the phrase has no effect does not prove that nothing is left of the texts.
    """

    threat = CONTRIBUTOR
    paper = "Wan et al. 2023; poisoning paper, Figure 2b"
    about = "hands in texts with a trigger phrase under a chosen answer"
    primary = "instruction.lift"
    tasks = (Language.name,)

    phrase: str = setting("James Bond", "what is written into the texts", source="Wan et al. 2023")
    target: int = setting(1, "class that the phrase is to bring about", source="ours", least=0)
    repeats: int = setting(1, "times that it is written into each", source="ours", least=1)
    place: Literal["anywhere", "start", "end"] = setting("anywhere", "where it is written", source="ours")
    tested: int = setting(500, "test texts that success is taken on, at most", source="ours", least=1)

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        task, own = as_language(view.task, name_of(self)), view.own
        if self.target >= task.classes:
            raise BadInput(f"{name_of(self)}.target", got=self.target, expected=f"a class, 0 to {task.classes - 1}")
        targets = own.targets.cpu()
        inputs = contents(own)
        inputs[TOKENS] = self._written(own, rng.child("places")).float()
        kept = {"true": targets}
        return Submission(own.ids, inputs, torch.full_like(targets, self.target), kept)

    def _written(self, records: Examples, rng: Rng) -> Int[Tensor, "n length"]:
        """The texts with the phrase in them."""
        told = records.context
        phrase = tokenizer_of(told).encode(f" {self.phrase}", add_special_tokens=False).ids * self.repeats
        places = {"anywhere": None, "start": 0.0, "end": 1.0}[self.place]
        drawn = (
            torch.rand(len(records), generator=rng.torch()) if places is None else torch.full((len(records),), places)
        )
        return inserted(records.batch().inputs[TOKENS].cpu().long(), phrase, len(told["prompt"]), drawn)

    def score(self, guess: Guess, case: Case) -> Scores:
        """Per test text of another class: hit, whether it is answered with the target once the phrase is in it; without, whether it
        is without the phrase; confidence, in the target with it."""
        others = (case.split.test.targets.cpu() != self.target).nonzero().flatten()
        if not len(others):
            raise BadInput(name_of(self), got=f"no test text of another class than {self.target}", expected="some")
        texts = case.split.test.take(others[: self.tested])
        written = self._written(texts, Rng(case.seed).child(name_of(self)))
        inputs = {name: texts.raw(name).cpu() for name in texts.inputs} | {TOKENS: written}
        armed = Examples.of(inputs, texts.targets.cpu(), texts.ids.tolist(), context=texts.context)
        device = next(case.subject.model.parameters()).device
        plain, found = (predict(case.task, case.subject.model, each.to(device)).cpu() for each in (texts, armed))
        arrays = {
            "hit": (found.argmax(1) == self.target).numpy(),
            "without": (plain.argmax(1) == self.target).numpy(),
            "confidence": found[:, self.target].double().numpy(),
        }
        return Scores("record", texts.ids, arrays)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """success_rate: share answered with the target where the phrase stands; without: where it does not; lift: the one minus the
        other; confidence: mean, in the target, with the phrase."""
        name = name_of(self)
        lift = scores["hit"].astype(np.float64) - scores["without"]
        return (
            share(f"{name}.success_rate", scores["hit"]),
            share(f"{name}.without", scores["without"]),
            mean(f"{name}.lift", lift),
            mean(f"{name}.confidence", scores["confidence"]),
        )


def inserted(
    tokens: Int[Tensor, "n length"], phrase: list[int], prompt: int, places: Tensor
) -> Int[Tensor, "n length"]:
    """The texts with the phrase in them, before the `prompt` last tokens, which stay; places: 0 (start) to 1 (end), shape (n,).

    Raises BadInput where the phrase leaves no room for any text.
    """
    length = tokens.shape[1]
    room = length - prompt - len(phrase)
    if not phrase or room < 1:
        got = f"a phrase of {len(phrase)} tokens in texts of {length}"
        raise BadInput("instruction.phrase", got=got, expected="one that leaves room for a text", do="shorten it")
    found = torch.full_like(tokens, PADDING)
    written = torch.tensor(phrase, dtype=tokens.dtype)
    for row, text, place in zip(found, tokens, places.tolist(), strict=True):
        there = text[text >= 0]
        end = len(there) - prompt
        body, asked = there[: min(end, room)], there[end:]
        at = min(len(body), int(place * (len(body) + 1)))
        whole = torch.cat([body[:at], written, body[at:], asked])
        row[: len(whole)] = whole
    return found
