"""Gradient inversion against breaching's `invertinggradients`: the same objective, model, gradients, threads and restarts.

speed: iterations of all restarts a second. One iteration is a gradient in the weights and the gradient in the input of
    1 − cosine + α·total variation. Ours runs the restarts as `batching=probe` chooses, the peer one after another, as it does.
psnr: seconds until the mean PSNR of recovered CIFAR-10 images is within 0.2 dB of what the peer reaches in 400 iterations of four
    restarts, best by its own score. Each side takes the fewest of 50, 100, 200 and 400 iterations that get there, the peer at
    its own schedule or a cosine, ours at the paper's or a cosine; every run is timed whole.
labels: queries to make ten probes of each class of digits at confidence 0.999, by the inversion paper's zeroth-order way and by
    random squares.

Both see inputs normalised by mean 0.5 and deviation 0.25, signed Adam at 0.1 with the peer's schedule in `speed`. The model is the
7-layer network with fresh weights, in evaluation mode; the gradient is that of one test image.

Run: make bench-env && .venv-bench/bin/python benchmarks/inversion.py [speed] [psnr] [labels] [--rounds 5] [--threads 2]
The data folder is PALIMPSEST_DATA, else ../shared/data.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import os
import platform
import sys
import time
from pathlib import Path
from statistics import median
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.attack.leakage._matching import Descent, match
from palimpsest.attack.leakage._probes import random_squares, zeroth_order
from palimpsest.data.digits import Digits
from palimpsest.data.hub import Hub
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.task import Classification, predict

RESTARTS, LR, MEAN, STD, SMOOTH = 4, 0.1, 0.5, 0.25, 0.01
"""LR: in normalised values, as the peer takes it. SMOOTH: weight of the total variation (α), in units of the stored image."""
SCHEDULES = {"ours": ("halved", "cosine"), "breaching": ("step-lr", "cosine-decay")}
WANTED = {"speed": 1.2, "psnr": 3.0, "labels": 2.0}


class Config(dict[str, Any]):
    """A mapping whose keys are attributes too, as the peer's configurations are."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def peer() -> Any:
    """breaching's optimisation attack. Its packages import hydra and torchvision at their top, which this part needs not: they are
    entered without being run."""
    found = importlib.util.find_spec("breaching")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("breaching: got no such package, expected it; run make bench-env")
    root = Path(next(iter(found.submodule_search_locations)))
    for name in ("breaching", "breaching.attacks", "breaching.cases", "breaching.cases.models"):
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    return importlib.import_module("breaching.attacks.optimization_based_attack").OptimizationBasedAttacker


def settings(iterations: int, restarts: int, schedule: str) -> Config:
    """`invertinggradients` with our number of iterations and restarts, and our weight of the total variation."""
    smooth = {"scale": SMOOTH * STD, "inner_exp": 1, "outer_exp": 1}
    optim = {"optimizer": "adam", "signed": "hard", "step_size": LR, "boxed": True, "max_iterations": iterations}
    optim |= {"step_size_decay": schedule, "callback": 10**9, "langevin_noise": 0.0, "warmup": 0, "grad_clip": None}
    return Config(
        type="invertinggradients",
        objective=Config(type="cosine-similarity", scale=1.0),
        restarts=Config(num_trials=restarts, scoring="cosine-similarity"),
        optim=Config(optim),
        regularization=Config(total_variation=Config(smooth)),
        impl=Config(dtype="float", mixed_precision=False, JIT=None),
        init="randn",
        normalize_gradients=False,
        differentiable_augmentations=False,
        label_strategy=None,
        text_strategy="no-preprocessing",
    )


class Normalised(nn.Module):
    """The model as the peer sees it: its inputs are normalised outside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x * STD + MEAN)
        return logits


def theirs(
    attacker: Any,
    model: nn.Module,
    gradient: list[Tensor],
    label: Tensor,
    iterations: int,
    schedule: str = "step-lr",
) -> Tensor:
    """The recovered image, (1, 3, 32, 32), in [0, 1]."""
    seen = Normalised(model).eval()
    metadata = SimpleNamespace(shape=(3, 32, 32), mean=(MEAN,) * 3, std=(STD,) * 3, modality="vision")
    metadata_of_user = {"labels": label, "num_data_points": 1, "local_hyperparams": None}
    buffers = [value.clone() for value in seen.buffers()]
    shared = [{"gradients": [part.clone() for part in gradient], "buffers": buffers, "metadata": metadata_of_user}]
    payload = [{"parameters": list(seen.parameters()), "buffers": buffers, "metadata": metadata}]
    made = attacker(seen, nn.CrossEntropyLoss(), settings(iterations, RESTARTS, schedule))
    found, _ = made.reconstruct(payload, shared, {})
    image: Tensor = found["data"] * STD + MEAN
    return image.clamp(0, 1)


def ours(
    task: Classification, model: nn.Module, gradient: list[Tensor], label: Tensor, iterations: int, schedule: Any
) -> Tensor:
    how = Descent(iterations, RESTARTS, LR * STD, SMOOTH, weight_decay=0.0, schedule=schedule)
    found = match(model, task, gradient, F.one_hot(label, 10).float(), how, rng=Rng(0))
    return found.inputs[found.best]


def speed(rounds: int) -> None:
    task, model, cases = situation(1)
    attacker, (_, label, gradient) = peer(), cases[0]
    ours(task, model, gradient, label, 5, "halved")
    taken: dict[str, list[float]] = {"ours": [], "breaching": []}
    for _ in range(rounds):
        for name in taken:
            start = time.perf_counter()
            if name == "ours":
                ours(task, model, gradient, label, 60, "halved")
            else:
                theirs(attacker, model, gradient, label, 60)
            taken[name].append(time.perf_counter() - start)
    ratio = median(taken["breaching"]) / median(taken["ours"])
    for name, seconds in taken.items():
        print(f"{name}: {60 * RESTARTS / median(seconds):.1f} iterations of a restart a second")
    print(f"speed: {ratio:.2f} times as fast per iteration (wanted {WANTED['speed']})")


def quality(images: int) -> None:
    task, model, cases = situation(images)
    attacker = peer()

    def run(recover: Any) -> tuple[float, float]:
        """Mean PSNR in dB, and seconds."""
        start = time.perf_counter()
        errors = [(recover(label, gradient) - truth).square().mean() for truth, label, gradient in cases]
        return float(torch.stack([-10 * error.log10() for error in errors]).mean()), time.perf_counter() - start

    def quickest(name: str, make: Any, target: float) -> float:
        """Seconds of the quickest setting that gets there; endless where none does."""
        best = math.inf
        for schedule in SCHEDULES[name]:
            for count in (50, 100, 200, 400):
                reached, seconds = run(lambda y, g, n=count, s=schedule: make(y, g, n, s))
                print(f"{name}, {schedule}, {count} iterations: {reached:.2f} dB in {seconds:.0f} s")
                if reached >= target:
                    best = min(best, seconds)
                    break
        return best

    def peers(label: Tensor, gradient: list[Tensor], count: int, schedule: str) -> Tensor:
        torch.manual_seed(0)
        return theirs(attacker, model, gradient, label, count, schedule)

    target, _ = run(lambda label, gradient: peers(label, gradient, 400, "step-lr"))
    print(f"breaching, 400 iterations: {target:.2f} dB")
    one = quickest("ours", lambda y, g, n, s: ours(task, model, g, y, n, s), target - 0.2)
    other = quickest("breaching", peers, target - 0.2)
    print(f"psnr: {other / one:.2f} times as fast to the same PSNR (wanted {WANTED['psnr']})")


def situation(images: int) -> tuple[Classification, nn.Module, list[tuple[Tensor, Tensor, list[Tensor]]]]:
    """The task, a fresh model in evaluation mode, and test images with labels and gradients."""
    place = Path(os.environ.get("PALIMPSEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    split = Hub(str(place / "cifar10"), limit=500).load()
    task = Classification.of(split)
    model = ConvNet(16).build(task, Rng(0)).eval()
    cases = []
    for position in range(images):
        one = split.test.take([position]).batch()
        gradient = list(torch.autograd.grad(task.loss(model, one), list(model.parameters())))
        cases.append((one.inputs[task.attacked_input], one.targets, gradient))
    return task, model, cases


def labels() -> None:
    split = Digits().load()
    task = Classification.of(split)
    model = Plain().fit(task, split.train, Recipe(epochs=8), ConvNet(8), rng=Rng(0)).model.eval()
    right = float((predict(task, model, split.test).argmax(1) == split.test.targets).float().mean())
    print(f"digits, ConvNet of width 8: test accuracy {right:.3f}")
    asked = {}
    for name, make, more in (
        ("zeroth order", zeroth_order, {"iterations": 20, "coordinates": 1024}),
        ("random squares", random_squares, {"changes": 1000}),
    ):
        found = make(
            lambda x: F.softmax(model(x), 1),
            task.shape,
            torch.arange(10).repeat_interleave(10),
            domain=task.domain,
            rng=Rng(0),
            threshold=0.999,
            tries=10,
            **more,  # type: ignore[arg-type]
        )
        asked[name] = found.queries
        print(f"{name}: {found.queries:,} queries, {float(found.accepted.float().mean()):.0%} of the probes accepted")
    ratio = asked["zeroth order"] / asked["random squares"]
    print(f"labels: {ratio:.1f} times fewer queries (wanted {WANTED['labels']})")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["speed", "psnr", "labels"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=4)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"{platform.processor() or platform.machine()}, {chosen.threads} threads, torch {torch.__version__}")
    if "speed" in chosen.parts:
        speed(chosen.rounds)
    if "psnr" in chosen.parts:
        quality(chosen.images)
    if "labels" in chosen.parts:
        labels()


if __name__ == "__main__":
    main()
