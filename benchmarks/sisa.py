"""What SISA spends to take records out, against training the ensemble again and against retraining one model on all records.

Records passed forward and backward, which no load of the machine changes. One record: the mean over single deletions, beside
(1/S)(2/3 + 1/(3R)) of training the ensemble (Bourtoule et al. 2021); several records at once: beside what the touched shards and
slices say. The weights are compared with training on the remaining records from scratch: they must be the same, bit for bit.

Run: python benchmarks/sisa.py
"""

from __future__ import annotations

import sys
from statistics import mean

import torch

from palimpsest.data.digits import Digits
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.learn.sharded import Sharded
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng, determinism
from palimpsest.task import Classification
from palimpsest.types import Examples
from palimpsest.unlearn.sisa import Sisa

CASES = ((5, 3), (5, 10), (10, 5), (20, 10))
"""Shards and slices."""
SINGLES, SEVERAL, TOLERANCE = 100, (2, 5, 20), 0.1
RECIPE, MODEL = Recipe(epochs=60, batch_size=32), Mlp(width=16, layers=2)
"""Epochs enough that rounding them to whole ones a slice changes little."""


def foretold(learner: Sharded, records: Examples, gone: Examples) -> int:
    """Records passed by training the touched shards from their first touched slice on."""
    epochs, left = learner.epochs(RECIPE), records.without(gone.ids)
    shards, slices = learner.places(left)
    return sum(
        epochs * int(((shards == shard) & (slices <= index)).sum())
        for shard, first in Sisa.touched(learner, gone).items()
        for index in range(first, learner.slices)
    )


def same(one: Trained, two: Trained) -> bool:
    other = two.model.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.model.state_dict().items())


def main() -> int:
    split = Digits().load()
    task, records, draw = Classification.of(split), split.train, Rng(0).child("benchmark").numpy()
    whole = Plain().fit(task, records.take(list(range(1, len(records)))), RECIPE, MODEL, rng=Rng(0)).cost.samples
    reached = True
    print(
        "| S | R | records | spent, share of the ensemble | formula, or touched shards | off | retraining one model | exact |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for shards, slices in CASES:
        learner = Sharded(shards=shards, slices=slices)
        trained = learner.fit(task, records, RECIPE, MODEL, rng=Rng(0))
        unit = trained.cost.samples
        for count in (1, *SEVERAL):
            spent, said, exact = [], [], []
            for turn in range(SINGLES if count == 1 else 5):
                gone = records.take(draw.choice(len(records), count, replace=False))
                retain = records.without(gone.ids)
                after = Sisa().unlearn(trained, retain, gone, rng=Rng(1))
                spent.append(after.cost.samples / unit)
                said.append(foretold(learner, records, gone) / unit)
                if turn == 0:
                    exact.append(same(after, learner.fit(task, retain, RECIPE, MODEL, rng=Rng(0))))
            expected = (2 / 3 + 1 / (3 * slices)) / shards if count == 1 else mean(said)
            off = mean(spent) / expected - 1
            reached &= abs(off) <= TOLERANCE and all(exact)
            print(
                f"| {shards} | {slices} | {count} | {mean(spent):.2%} | {expected:.2%} | {off:+.1%} | {whole / unit:.0%} | "
                f"{'yes' if all(exact) else 'NO'} |",
                flush=True,
            )
    return 0 if reached else 1


if __name__ == "__main__":
    with determinism(1):
        sys.exit(main())
