"""Importances of Fisher forgetting and SSD: gradients of many records a call against a batch-of-one loop.

ssd: the mean over 1,000 digits of the squared entries of the loss gradient. fisher: the same with the expectation over the model's
own posterior, which takes a gradient for each class. Both sides give the same vector; they are timed in turn and medians are
compared.

Run: python benchmarks/importances.py [mlp convnet]
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from palimpsest.data.digits import Digits
from palimpsest.learn.loop import Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.unlearn.curvature import Curvature

MODELS: dict[str, tuple[str, Model]] = {"mlp": ("MLP", Mlp()), "convnet": ("ConvNet width 4", ConvNet(width=4))}
WANTED, ROUNDS, RECORDS = 4.0, 5, 1000


def timed(work: Callable[[bool], Tensor], many: bool) -> tuple[float, Tensor]:
    begin = time.perf_counter()
    found = work(many)
    return time.perf_counter() - begin, found


def run(name: str, factory: Model) -> bool:
    split = Digits().load()
    trained = Plain().fit(Classification.of(split), split.train, Recipe(epochs=3), factory, rng=Rng(0))
    curvature, records = Curvature(trained.model, trained.task, Meter()), split.train.take(list(range(RECORDS)))
    works: dict[str, Callable[[bool], Tensor]] = {
        "ssd": lambda many: curvature.importances(records, vectorised=many),
        "fisher": lambda many: curvature.expected_importances(records, 10, vectorised=many),
    }
    reached = True
    for kind, work in works.items():
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(ROUNDS + 1 if kind == "ssd" else 3):
            found = {}
            for many in (True, False):
                spent, found[many] = timed(work, many)
                if turn:  # the first round warms up
                    seconds[many].append(spent)
        ratio = median(slow / fast for fast, slow in zip(seconds[True], seconds[False], strict=True))
        apart = float((found[True] - found[False]).norm() / found[False].norm())
        reached &= ratio >= WANTED and apart <= 1e-3
        print(
            f"{name} on digits, {kind}: loop {median(seconds[False]):.2f} s, ours {median(seconds[True]):.3f} s: {ratio:.1f}× "
            f"(to reach: {WANTED:g}×); relative difference {apart:.1e} (at most 1e-3)",
            flush=True,
        )
    return reached


def main() -> int:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    results = [run(*MODELS[name]) for name in sys.argv[1:] or MODELS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
