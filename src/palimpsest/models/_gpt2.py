"""A `GPT2LMHeadModel` of the package transformers as a model of the task of language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palimpsest.language import embedding_noise


class Answering(nn.Module):
    """(n, length) token ids, below 0 after the last → (n, classes) logits of the answers after it.

    Takes over `inner`, whose output layer is its table of embeddings. Padding stands behind what is read, where a causal model
    does not look.
    """

    answers: Tensor

    def __init__(self, inner: Any, answers: Sequence[int]) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("answers", torch.tensor(answers, dtype=torch.long))

    def embed(
        self, tokens: Int[Tensor, "n length"], noise: Float[Tensor, "n 2"] | None = None
    ) -> Float[Tensor, "n length width"]:
        """Embeddings of the tokens, without those of places; with the noise of each record that has some."""
        found: Tensor = self.inner.transformer.wte(tokens.clamp_min(0))
        if noise is None:
            return found
        rows = (noise[:, 0] > 0).nonzero().flatten()
        if not len(rows):
            return found
        drawn = embedding_noise(noise[rows, 0].cpu(), *found.shape[1:]).to(found)
        return found.index_add(0, rows, drawn * noise[rows, 1].to(found).view(-1, 1, 1))

    def encode(self, tokens: Tensor, noise: Tensor | None = None) -> Float[Tensor, "n width"]:
        """What the answer is read off: the last state of the last token."""
        return self._last(self._states(self.embed(tokens.long(), noise)), tokens.long())

    def answer(
        self, embedded: Float[Tensor, "n length width"], tokens: Int[Tensor, "n length"]
    ) -> Float[Tensor, "n classes"]:
        """The answers' logits after texts with these embeddings; tokens tell where they end."""
        return self._answer(self._last(self._states(embedded), tokens))

    def both(
        self, tokens: Tensor, noise: Tensor | None = None
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n length vocabulary"]]:
        """The answers' logits, and those of the next token after each one."""
        states = self._states(self.embed(tokens.long(), noise))
        return self._answer(self._last(states, tokens.long())), self.inner.lm_head(states)

    def forward(self, tokens: Tensor, noise: Tensor | None = None) -> Float[Tensor, "n classes"]:
        return self.answer(self.embed(tokens.long(), noise), tokens.long())

    def blocks(self) -> list[nn.Module]:
        """The tables of tokens and places, each layer, and the last norm."""
        inner = self.inner.transformer
        return [inner.wte, inner.wpe, *inner.h, inner.ln_f]

    def _states(self, embedded: Tensor) -> Float[Tensor, "n length width"]:
        found: Tensor = self.inner.transformer(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return found

    def _last(self, states: Tensor, tokens: Tensor) -> Float[Tensor, "n width"]:
        ends = (tokens >= 0).sum(1) - 1
        return states[torch.arange(len(states), device=states.device), ends]

    def _answer(self, last: Tensor) -> Float[Tensor, "n classes"]:
        logits: Tensor = last @ self.inner.lm_head.weight[self.answers].T
        return logits
