"""The bundled table of breast cancer told in words: the embedded text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

from palimpsest.catalog import setting
from palimpsest.data._tokens import as_tokens, context, opened
from palimpsest.data.base import Dataset
from palimpsest.types import Examples, Split

WORDS = ("very small", "small", "ordinary", "large", "very large")
PROMPT = " So it is"


@dataclass(frozen=True)
class Diagnoses(Dataset):
    """569 texts such as "The mean radius is very large. The worst texture is small. …", of malignant or benign tumours.

    A text tells the `told` measurements of a row that are farthest from the middle, farthest first, in fifths of the validation
    rows; the tokens are a byte-level BPE's, learnt from validation texts. Made for tests and first steps: the words hold what the
    table holds, and no more. Needs `pip install 'palimpsest-ml[text]'`.
    """

    about = "diagnostic breast cancer told in words, as tokens, 2 classes, bundled"

    tokens: int = setting(80, "tokens of a text", source="ours", least=8)
    told: int = setting(8, "measurements that a text tells", source="ours", least=1, most=30)

    def load(self) -> Split:
        source = load_breast_cancer()
        ids = np.array([f"diagnoses/{row:03d}" for row in range(len(source.data))])
        where = self.parted("diagnoses", ids)
        held = np.sort(source.data[where.validation], 0)
        ranks = np.stack([np.searchsorted(held[:, j], source.data[:, j]) for j in range(held.shape[1])], 1) / (
            len(held) + 1
        )
        order = np.argsort(-np.abs(ranks - 0.5), axis=1, kind="stable")[:, : self.told]
        texts = [
            " ".join(f"The {source.feature_names[j]} is {WORDS[int(5 * ranks[i, j])]}." for j in order[i])
            for i in range(len(ids))
        ]
        classes = tuple(str(name) for name in source.target_names)
        tokenizer = opened("", [texts[row] for row in where.validation], 400, classes)
        known = context(tokenizer, PROMPT, classes)
        read = as_tokens(tokenizer, texts, self.tokens, known["prompt"], "start")
        base = {"tokens": torch.from_numpy(read)}
        records = Examples.of(base, torch.from_numpy(source.target), ids.tolist(), context=known)
        return self.part("diagnoses", "tokens", records, classes)
