"""A small GPT-2 that has read diagnoses, a table of texts, and methods that unlearn either."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from palimpsest.data.diagnoses import Diagnoses
from palimpsest.language import Language
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.gpt2 import Gpt2
from palimpsest.rng import Rng
from palimpsest.types import Split
from palimpsest.unlearn.catastrophic_forgetting_k import CatastrophicForgettingK
from palimpsest.unlearn.exact_unlearning_k import ExactUnlearningK
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.gradient_ascent import GradientAscent
from palimpsest.unlearn.l1_sparse import L1Sparse
from palimpsest.unlearn.negative_gradient import NegativeGradient
from palimpsest.unlearn.noisy_gradient_descent import NoisyGradientDescent
from palimpsest.unlearn.random_label import RandomLabel
from palimpsest.unlearn.salun import SalUn
from palimpsest.unlearn.scrub import Scrub
from palimpsest.unlearn.single_gradient import SingleGradient
from palimpsest.unlearn.ssd import SelectiveSynapticDampening

SMALL = Gpt2(layers=1, heads=2, width=16, dropout=0.0, writing=0.5)
RECIPE = Recipe(epochs=12, batch_size=32, optimizer="adamw", lr=5e-3)


METHODS = (
    Finetune(epochs=1, lr=0.05),
    GradientAscent(epochs=1, lr=0.05),
    NegativeGradient(epochs=1),
    NoisyGradientDescent(epochs=1, lr=0.01),
    Scrub(epochs=1, max_epochs=1),
    ExactUnlearningK(k=1, epochs=1),
    CatastrophicForgettingK(k=1, epochs=1),
    SalUn(epochs=1),
    RandomLabel(epochs=1),
    L1Sparse(epochs=1),
    SingleGradient(),
    SelectiveSynapticDampening(samples=20, alpha=0.5),
)
"""The poisoning paper's, and others that ask nothing but the task's loss."""


@cache
def posed(model: Gpt2 = SMALL) -> tuple[Language, Split]:
    split = Diagnoses().load()
    task = model.task(split)
    return task, task.prepare(split)


@cache
def trained(model: Gpt2 = SMALL) -> Trained:
    task, split = posed(model)
    return Plain().fit(task, split.train, RECIPE, model, rng=Rng(0))


def texts(tmp_path: Path, rows: int = 60) -> Path:
    lines = ["text,label"]
    for row in range(rows):
        kind = "good" if row % 2 else "bad"
        lines.append(f'"this film number {row} was {kind} {"very " * (row % 7)}{kind}",{kind}')
    path = tmp_path / "films.csv"
    path.write_text("\n".join(lines))
    return path
