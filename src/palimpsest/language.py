"""The task of language: a model reads a text, goes on with an answer, and has learnt to write such texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.store import digest
from palimpsest.task import Classification, Task, reduced
from palimpsest.types import Batch, Examples, Split

TOKENS, NOISE = "tokens", "noise"
"""The inputs: token ids, shape (n, length), below 0 after the last one; and of which noise on their embeddings, (n, 2): a seed and
a deviation, both 0 for none."""
SEEDS = 2**23
"""Seeds of noise are below this, so that 32-bit floats hold them."""


@dataclass(frozen=True)
class Language(Classification):
    """Which of `answers`, one token for each class, comes after a text; and which token comes after each other one.

    A model of this task gives logits over the answers after a record's last token, shape (n, classes), and, by `both`, logits over
    the vocabulary after every token too. The loss is the cross-entropy of the answer, plus `writing` times the mean over a text's
    tokens of that of the next one: instruction tuning where `writing` is 0. What asks for posteriors asks for those of the answers.

    The embeddings of a text are what noise is added to and what gradients are taken in: tokens are no numbers. width: of one.
    std: of an embedding's values before training, the unit of noise.
    """

    name = "language"
    vectorises = False

    vocabulary: int = 0
    width: int = 0
    writing: float = 0.0
    words: tuple[int, ...] = ()

    @staticmethod
    def posed(split: Split, width: int, writing: float, std: float) -> Language:
        """Raises BadInput for data that are no tokens."""
        if split.kind != TOKENS:
            do = "read text with --set hub.tokens=128"
            raise BadInput("language", got=f"{split.kind} records", expected="text as tokens", do=do)
        told = split.train.context
        answers = tuple(int(token) for token in told["answers"])
        return Language(
            classes=len(split.classes),
            shape=split.shape,
            mean=(0.0,),
            std=(std,),
            domain=split.domain,
            attacked_input=TOKENS,
            vocabulary=int(told["vocabulary"]),
            width=width,
            writing=writing,
            words=answers,
        )

    def identity(self) -> dict[str, Any]:
        own = {"vocabulary": self.vocabulary, "width": self.width, "writing": self.writing, "answers": self.words}
        return {**super().identity(), "task": self.name, **own}

    def prepare(self, split: Split) -> Split:
        """The split with the input "noise" in every part: none yet."""
        public = [] if split.public is None else [split.public]
        parts = _silent((split.train, split.validation, split.test, *public))
        told = digest({"data": split.fingerprint, "inputs": [TOKENS, NOISE]})
        held = parts[3] if public else None
        return replace(split, train=parts[0], validation=parts[1], test=parts[2], public=held, fingerprint=told)

    def loss(self, model: nn.Module, batch: Batch, *, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
        if not self.writing:
            return super().loss(model, batch, reduction=reduction, label_smoothing=label_smoothing)
        tokens = batch.inputs[TOKENS].long()
        logits, words = model.both(tokens, batch.inputs.get(NOISE))  # type: ignore[operator]
        answer = F.cross_entropy(logits.float(), batch.targets, reduction=reduction, label_smoothing=label_smoothing)
        return answer + self.writing * reduced(_surprise(words, tokens), reduction)

    def surprise(self, model: nn.Module, batch: Batch) -> Float[Tensor, " n"]:
        """Mean cross-entropy of a text's tokens but the first, each after those before it, in nats."""
        tokens = batch.inputs[TOKENS].long()
        return _surprise(model.both(tokens, batch.inputs.get(NOISE))[1], tokens)  # type: ignore[operator]

    def perceived(self, model: nn.Module, batch: Batch) -> Float[Tensor, "n length width"]:
        """The embeddings, noise included where a record has some."""
        found: Tensor = model.embed(batch.inputs[TOKENS].long(), batch.inputs.get(NOISE))  # type: ignore[operator]
        return found

    def loss_at(self, model: nn.Module, batch: Batch, perceived: Tensor, *, reduction: str = "mean") -> Tensor:
        """The answer's part of the loss, of texts with these embeddings."""
        tokens = batch.inputs[TOKENS].long()
        return F.cross_entropy(model.answer(perceived, tokens).float(), batch.targets, reduction=reduction)  # type: ignore[operator]

    def noised(self, inputs: Mapping[str, Tensor], deviation: float, rng: Rng) -> tuple[dict[str, Tensor], Tensor]:
        """Noise is told by its seed, one for each record, and drawn where the text is read: embeddings change in training."""
        first = int(torch.randint(SEEDS, (1,), generator=rng.torch()))
        seeds = (1 + (first + torch.arange(len(inputs[TOKENS]))) % (SEEDS - 1)).float()  # no two alike
        told = torch.stack([seeds, torch.full_like(seeds, deviation * self.std[0])], 1)
        return {**inputs, NOISE: told}, seeds

    def drawn(self, noise: Tensor) -> Float[Tensor, "n length width"]:
        return embedding_noise(noise, self.shape[0], self.width)

    def unit(self, deviation: float, like: Tensor) -> Tensor:
        return torch.tensor(deviation * self.std[0])


def as_language(task: Task, who: str) -> Language:
    """The task, where it is language. Raises BadInput, as `who`, where it is another."""
    if not isinstance(task, Language):
        got, do = f"the task {task.name}", "leave it out, or choose a --model such as gpt2"
        raise BadInput(who, got=got, expected=f"the task {Language.name}", do=do)
    return task


def embedding_noise(seeds: Float[Tensor, " n"], length: int, width: int) -> Float[Tensor, "n length width"]:
    """The standard normal noise of each seed, the same on every device."""
    found = torch.empty(len(seeds), length, width)
    for row, seed in zip(found, seeds.tolist(), strict=True):
        row.normal_(generator=torch.Generator().manual_seed(int(seed)))
    return found


def _surprise(words: Tensor, tokens: Tensor) -> Float[Tensor, " n"]:
    wanted = tokens[:, 1:]
    each = F.cross_entropy(words[:, :-1].float().flatten(0, 1), wanted.clamp_min(0).flatten(), reduction="none")
    there = wanted >= 0
    return (each.view_as(wanted) * there).sum(1) / there.sum(1).clamp_min(1)


def _silent(parts: tuple[Examples, ...]) -> list[Examples]:
    """The records without noise; parts that share a base go on sharing it."""
    bases: dict[int, Tensor] = {}
    found = []
    for part in parts:
        base = part.inputs[TOKENS]
        none = bases.setdefault(id(base), torch.zeros(len(base), 2, device=base.device))
        found.append(replace(part, inputs={**part.inputs, NOISE: none}))
    return found
