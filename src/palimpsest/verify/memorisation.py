"""What a language model can go on saying of a text: how much of it is memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palimpsest.case import Case
from palimpsest.catalog import name_of, setting
from palimpsest.data._tokens import PADDING
from palimpsest.errors import BadInput
from palimpsest.language import TOKENS, Language, as_language
from palimpsest.measures.intervals import mean
from palimpsest.task import evaluating
from palimpsest.types import Array, Examples, Measure, Scores
from palimpsest.verify.accuracy import by_group
from palimpsest.verify.base import Verifier

AT_ONCE = 64


@dataclass(frozen=True)
class Memorisation(Verifier):
    """Memorisation accuracy and extraction likelihood (Tirumala et al. 2022; Jang et al. 2023), of forgotten and of unseen texts.

    Memorisation accuracy is the share of a text's tokens that a model would have said next, given all before them. Extraction
    likelihood lets it go on alone, from a few places of the text to its end, and takes the share of its n-grams that stand in the
    rest of the text. The places are at even distances; Jang et al. take every one, which costs a writing for each token.

    Language repeats itself: a model says much of texts that it never saw. Read either beside the retrained model's. A model that
    was trained on answers alone (`writing` 0) writes nothing, and both measures of it are near 0.
    """

    about = "how much of a text a language model can go on saying: memorisation accuracy and extraction likelihood"
    tasks = (Language.name,)

    n: int = setting(3, "tokens of an n-gram", source="ours for short texts; 10 in Jang et al.", least=1)
    places: int = setting(
        3, "places of a text from which the model goes on", source="ours; all in Jang et al.", least=1
    )
    texts: int = setting(128, "texts of each group, at most", source="ours", least=1)

    def verify(self, case: Case) -> Scores:
        """Scores per text: `group` as in accuracy, `said` (memorisation accuracy), `extracted` (extraction likelihood; NaN of a
        text that is too short to go on from any place). The prompt is no part of a text."""
        model = case.subject.model
        task = as_language(case.task, name_of(self))

        def columns(group: str, part: Examples) -> dict[str, Array]:
            parts = [self._scored(model, tokens) for tokens in _texts(part, next(model.parameters()).device)]
            said, extracted = (torch.cat(each).double().cpu().numpy() for each in zip(*parts, strict=True))
            return {"said": said, "extracted": extracted}

        if self.n >= task.shape[0]:
            raise BadInput(
                f"{name_of(self)}.n", got=self.n, expected=f"fewer than the {task.shape[0]} tokens of a text"
            )
        with evaluating(model), torch.no_grad():
            return by_group(case, columns, most=self.texts)

    def _scored(self, model: nn.Module, tokens: Int[Tensor, "n length"]) -> tuple[Tensor, Tensor]:
        wanted = tokens[:, 1:]
        there = wanted >= 0
        right = (model.both(tokens)[1][:, :-1].argmax(2) == wanted) & there  # type: ignore[operator]
        said = right.sum(1) / there.sum(1).clamp_min(1)
        total = torch.zeros(len(tokens), dtype=torch.float64)
        count = torch.zeros(len(tokens), dtype=torch.float64)
        for start in np.linspace(0, tokens.shape[1] - self.n, self.places + 2)[1:-1].astype(int).tolist():
            able = ((tokens >= 0).sum(1) >= start + self.n).nonzero().flatten()
            if start and len(able):
                total[able.cpu()] += self._overlap(model, tokens[able], start)
                count[able.cpu()] += 1
        return said, torch.where(count > 0, total / count.clamp_min(1), torch.nan)

    def _overlap(self, model: nn.Module, tokens: Int[Tensor, "n length"], start: int) -> Float[Tensor, " n"]:
        """The share of the n-grams of what the model writes after the first `start` tokens that stand in the rest of the text."""
        written = continued(model, tokens[:, :start], tokens.shape[1] - start).cpu().numpy()
        found = []
        for own, text in zip(written, tokens.cpu().numpy(), strict=True):
            rest = text[start:][text[start:] >= 0]
            grams, there = _grams(own[: len(rest)], self.n), set(_grams(rest, self.n))
            found.append(float(np.mean([gram in there for gram in grams])))
        return torch.tensor(found, dtype=torch.float64)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """memorisation_accuracy and extraction_likelihood: means over forgotten texts; unseen_…: over test texts."""
        found = []
        for prefix, group in (("", 1), ("unseen_", 2)):
            mine = scores["group"] == group
            if mine.any():
                found.append(mean(f"{prefix}memorisation_accuracy", scores["said"][mine]))
                extracted = scores["extracted"][mine]
                if np.isfinite(extracted).any():
                    found.append(mean(f"{prefix}extraction_likelihood", extracted[np.isfinite(extracted)]))
        return tuple(found)


def continued(model: nn.Module, tokens: Int[Tensor, "n start"], count: int) -> Int[Tensor, "n count"]:
    """What the model says next, the likeliest token each time."""
    inner, found, past, embedded = model.inner, [], None, model.embed(tokens)  # type: ignore[operator]
    for _ in range(count):
        seen = inner.transformer(inputs_embeds=embedded, past_key_values=past, use_cache=True)  # type: ignore[union-attr, operator]
        past, last = seen.past_key_values, inner.lm_head(seen.last_hidden_state[:, -1]).argmax(1)  # type: ignore[union-attr, operator]
        found.append(last)
        embedded = model.embed(last[:, None])  # type: ignore[operator]
    return torch.stack(found, 1)


def _grams(tokens: Array, n: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[at : at + n].tolist()) for at in range(len(tokens) - n + 1)]


def _texts(part: Examples, device: torch.device) -> Iterator[Tensor]:
    """Tokens of the texts without their prompt, some texts at a time, on this device."""
    prompt = len(part.context["prompt"])
    for batch in part.to(device).batches(AT_ONCE):
        tokens = batch.inputs[TOKENS].long()
        places = torch.arange(tokens.shape[1], device=device)
        ends = (tokens >= 0).sum(1, keepdim=True) - prompt
        yield torch.where(places < ends, tokens, PADDING)
