"""Influence unlearning's Fisher solve: gradients of many records a call against batch-of-one loops of the same solve.

All sides compute (λI + F)⁻¹v over the same 1,000 retain records, at the same weights, with the same threads and the default λ.
The first peer takes the gradients one by one and ends in our own Woodbury solve, so that only the gradients differ. The second
is WoodFisher as its users write it, record by record to the end, but correct: each gradient enters the inverse before
the next one is taken. Ours and the first peer are timed in turn, and the medians are compared; the second, which takes minutes,
runs once. The difference between two vectors is relative to their norm.

Run: python benchmarks/influence.py [mlp convnet resnet18]. Images of 32×32 are CIFAR-10's where PALIMPSEST_DATA
names a folder that holds `cifar10`, else random ones.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from palimpsest import catalog
from palimpsest.data.digits import Digits
from palimpsest.learn.loop import Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.mlp import Mlp
from palimpsest.models.resnet18 import ResNet18
from palimpsest.rng import Rng
from palimpsest.task import Classification, Task
from palimpsest.types import Examples
from palimpsest.unlearn._per_record import Gradients
from palimpsest.unlearn.curvature import Curvature, woodbury
from palimpsest.unlearn.influence import Influence

THREADS = int(os.environ.get("THREADS", "2"))


@dataclass(frozen=True)
class Setting:
    """What is timed: a model and its records, the repeats, and the ratio to reach."""

    name: str
    factory: Model
    images: Callable[[], tuple[Examples, Classification, str]]
    epochs: int
    repeats: int
    target: float


def digits() -> tuple[Examples, Classification, str]:
    split = Digits().load()
    return split.train, Classification.of(split), "digits"


def cifar_or_random() -> tuple[Examples, Classification, str]:
    folder = Path(os.environ.get("PALIMPSEST_DATA", "")) / "cifar10"
    if os.environ.get("PALIMPSEST_DATA") and folder.exists() and "hub" in catalog.members("data"):
        split = catalog.make("data", "hub", {"path": str(folder), "limit": 1400}).load()
        return split.train, Classification.of(split), "CIFAR-10"
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (1400, 3, 32, 32), generator=draw, dtype=torch.uint8)
    records = Examples.of({"image": pixels}, torch.randint(10, (1400,), generator=draw), [f"r{i}" for i in range(1400)])
    task = Classification(10, (3, 32, 32), (0.5,) * 3, (0.25,) * 3, (torch.zeros(()), torch.ones(())), "image")
    return records, task, "random 32×32 images"


SETTINGS = {
    "mlp": Setting("MLP", Mlp(), digits, 10, 7, 5.0),
    "convnet": Setting("ConvNet width 16", ConvNet(width=16), digits, 3, 5, 5.0),
    "resnet18": Setting("ResNet-18 width 16", ResNet18(width=16), cifar_or_random, 2, 3, 2.0),
}


def loop(model: nn.Module, task: Task, records: Examples, vector: Tensor, damping: float) -> Tensor:
    """The peer: one record, one backward pass, one row; then the solve."""
    parameters = list(model.parameters())
    rows = torch.empty(len(records), vector.numel())
    for index, batch in enumerate(records.batches(1)):
        gradient = torch.autograd.grad(task.loss(model, batch), parameters)
        torch.cat([part.reshape(-1) for part in gradient], out=rows[index])
    return woodbury(Gradients.of(rows), vector, damping)


def record_by_record(model: nn.Module, task: Task, records: Examples, vector: Tensor, damping: float) -> Tensor:
    """The second peer, by Sherman and Morrison: with F₀ = λI, oᵢ = Fᵢ₋₁⁻¹gᵢ and Fᵢ⁻¹ = Fᵢ₋₁⁻¹ − oᵢoᵢᵀ/(n + gᵢᵀoᵢ)."""
    parameters, count = list(model.parameters()), len(records)
    held, scales = torch.empty(count, vector.numel()), torch.empty(count)
    found = vector / damping
    for index, batch in enumerate(records.batches(1)):
        gradient = torch.cat([part.reshape(-1) for part in torch.autograd.grad(task.loss(model, batch), parameters)])
        before = held[:index]
        torch.sub(gradient / damping, before.T @ ((before @ gradient) / scales[:index]), out=held[index])
        scales[index] = count + gradient @ held[index]
        found -= held[index] * ((held[index] @ vector) / scales[index])
    return found


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def run(setting: Setting) -> bool:
    records, task, source = setting.images()
    recipe = Recipe(epochs=setting.epochs, lr=0.05)
    trained = Plain().fit(task, records, recipe, setting.factory, rng=Rng(0))
    forget, retain = records.take(list(range(100))), records.take(list(range(100, len(records))))
    influence, curvature = Influence(), Curvature(trained.model, task, Meter())
    vector = curvature.gradient_sum(forget) / len(records)
    vector -= curvature.gradient_sum(retain) * (len(forget) / (len(records) * len(retain)))
    order = torch.randperm(len(retain), generator=Rng(1).child("curvature").torch())[: influence.samples]
    chosen = retain.take(order)

    ours, peer, gradients, differences = [], [], [], []
    for attempt in range(setting.repeats + 1):
        seconds, fast = timed(lambda: influence.solve(curvature, retain, vector, Rng(1)))
        slow_seconds, slow = timed(lambda: loop(trained.model, task, chosen, vector, influence.damping))
        only, _ = timed(lambda: curvature.gradients(chosen))
        differences.append(float((fast - slow).norm() / slow.norm()))
        if attempt:  # the first one warms up
            ours, peer, gradients = [*ours, seconds], [*peer, slow_seconds], [*gradients, only]
    ratio, difference = median(peer) / median(ours), max(differences)
    bent = float((influence.damping * slow - vector).norm() / vector.norm())
    print(
        f"{setting.name} on {source}: {curvature.size:,} weights, {len(chosen)} gradients, ours {median(ours):.3f} s "
        f"({median(gradients):.3f} s without the solve); the solve changes v by {bent:.0%}\n"
        f"  gradients in a loop, our solve: {median(peer):.3f} s, {ratio:.1f}×; "
        f"relative difference {difference:.1e} (at most 1e-4)",
        flush=True,
    )
    whole_seconds, whole = timed(lambda: record_by_record(trained.model, task, chosen, vector, influence.damping))
    whole_ratio, apart = whole_seconds / median(ours), float((fast - whole).norm() / whole.norm())
    print(
        f"  all in a loop: {whole_seconds:.1f} s, {whole_ratio:.0f}× (to reach: {setting.target:g}×); "
        f"relative difference {apart:.1e}, its rounding included",
        flush=True,
    )
    return whole_ratio >= setting.target and difference <= 1e-4


def main() -> int:
    torch.set_num_threads(THREADS)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {THREADS} threads", flush=True)
    results = [run(SETTINGS[name]) for name in sys.argv[1:] or SETTINGS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
