"""Gradient matching against ART's GradientMatchingAttack: the same model, poisons, target, ε, starts, steps and threads.

speed: poison steps a second, one step being one pass over all poisons of one start, on CIFAR-10 (a ResNet-18 of width 16, 100
    poisons) and on digits (a convolutional network of width 8, 60 poisons). ART takes its starts one after another and reads its
    poisons through a data loader with a process of its own in every step; `inner` is its step without that: its own loss and
    optimiser on one batch.
success: digits, at equal steps and starts: matching loss of what comes out, by the same formula, and how often victims trained
    on it take the target for the intended class. The model is trained for a sixth of the victims' epochs.

Run: make bench-env && .venv-bench/bin/python benchmarks/poisoning.py [speed] [success] [--rounds 5] [--threads 2] [--seeds 10]
The data folder is PALIMPSEST_DATA, else ../shared/data.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.attack.poisoning._craft import Brew, _Objective, brew, direction
from palimpsest.data.digits import Digits
from palimpsest.data.hub import Hub
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.resnet18 import ResNet18
from palimpsest.rng import Rng
from palimpsest.task import Classification, evaluating
from palimpsest.types import Batch, Examples, Split

WANTED = 1.5
STARTS, STEPS = 4, 10


@dataclass(frozen=True)
class Situation:
    """A trained model, poisons of the intended class, and an unseen record of another class, rightly read."""

    split: Split
    task: Classification
    model: nn.Module
    poisons: Examples
    target: Examples
    intended: int
    epsilon: float

    @property
    def aim(self) -> list[Tensor]:
        return direction(self.model, self.task, self.target, torch.tensor([self.intended]))


def situation(split: Split, factory: Model, recipe: Recipe, count: int, epsilon: float, seed: int) -> Situation:
    task = Classification.of(split)
    model = Plain().fit(task, split.train, recipe, factory, rng=Rng(seed).child("adversary")).model.eval()
    draw = Rng(seed).child("choice").numpy()
    intended = int(draw.integers(len(split.classes)))
    mine = split.train.take(draw.permutation(np.flatnonzero(split.train.targets.numpy() == intended))[:count])
    others = split.test.take(np.flatnonzero(split.test.targets.numpy() != intended))
    with torch.no_grad():
        right = task.error(model, others.batch()) == 0
    target = others.take([int(draw.choice(np.flatnonzero(right.numpy())))])
    return Situation(split, task, model, mine, target, intended, epsilon)


def ours(here: Situation, steps: int, starts: int, seed: int = 0) -> Tensor:
    how = Brew(here.epsilon, starts, steps, 0.1, "none", 10**6)
    with evaluating(here.model):
        found = brew([here.model], here.task, here.poisons.batch(), [here.aim], how, bytes_=False, rng=Rng(seed))
    return found.inputs


def theirs(here: Situation, steps: int, starts: int) -> Tensor:
    attack = peer(here, steps, starts)
    name = here.task.attacked_input
    clean, labels = here.poisons.batch().inputs[name].numpy(), here.poisons.targets.numpy()
    shown = here.target.batch().inputs[name].numpy()
    made, _ = attack.poison(shown, np.array([here.intended]), clean.copy(), labels)
    return torch.from_numpy(made).float()


def peer(here: Situation, steps: int, starts: int) -> Any:
    from art.attacks.poisoning import GradientMatchingAttack
    from art.estimators.classification import PyTorchClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = PyTorchClassifier(
            here.model,
            nn.CrossEntropyLoss(),
            here.split.shape,
            len(here.split.classes),
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
    falls = [int(share * steps) for share in (3 / 8, 5 / 8, 7 / 8, 1)]
    return GradientMatchingAttack(
        wrapped,
        percent_poison=1.0,
        epsilon=here.epsilon,
        max_trials=starts,
        max_epochs=steps,
        learning_rate_schedule=([1e-1, 1e-2, 1e-3, 1e-4], falls),
        batch_size=len(here.poisons),
        verbose=0,
    )


def inner(here: Situation, steps: int, starts: int) -> None:
    """ART's steps on one batch, without its data loader."""
    attack = peer(here, steps, starts)
    name = here.task.attacked_input
    clean, labels = here.poisons.batch().inputs[name], here.poisons.targets
    shown = here.target.batch().inputs[name].numpy()
    places = torch.arange(len(clean))[:, None]
    for _ in range(starts):
        attack._initialize_poison(shown, np.array([here.intended]), clean.numpy(), labels.numpy())
        model, optimiser = attack.backdoor_model, attack.optimizer
        for _ in range(steps):
            model.zero_grad()
            loss, _ = model(clean, places, labels, attack.grad_ws_norm)
            loss.backward()
            model.noise_embedding.embedding_layer.weight.grad.sign_()
            optimiser.step()
            attack.lr_schedule.step()


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def speed(rounds: int, data: Path) -> None:
    images = Hub(str(data / "cifar10"), limit=2000).load()
    cases = {
        "CIFAR-10, ResNet-18 width 16, 100 poisons": situation(
            images, ResNet18(width=16), Recipe(epochs=2), 100, 16 / 255, 0
        ),
        "digits, ConvNet width 8, 60 poisons": situation(
            Digits().load(), ConvNet(width=8), Recipe(epochs=3), 60, 48 / 255, 0
        ),
    }
    for name, here in cases.items():
        for starts in (1, STARTS):
            runs = {
                "ours": lambda here=here, starts=starts: ours(here, STEPS, starts),
                "ART": lambda here=here, starts=starts: theirs(here, STEPS, starts),
                "inner": lambda here=here, starts=starts: inner(here, STEPS, starts),
            }
            for run in runs.values():
                run()
            found = {who: [] for who in runs}
            for _ in range(rounds):
                for who, run in runs.items():
                    found[who].append(timed(run))
            told = [f"{who} {STEPS * starts / median(times):.1f} steps/s" for who, times in found.items()]
            ratios = [median(a / b for a, b in zip(found[who], found["ours"], strict=True)) for who in ("ART", "inner")]
            verdict = "reached" if ratios[0] >= WANTED else "not reached"
            print(f"{name}, {starts} starts: {', '.join(told)}")
            print(f"  ART/ours {ratios[0]:.2f} (wanted {WANTED}: {verdict}), inner/ours {ratios[1]:.2f}")


def matching(here: Situation, inputs: Tensor) -> float:
    """1 − cosine of what was made, by one formula for both."""
    with evaluating(here.model), torch.no_grad():
        objective = _Objective(here.model, here.task, here.aim)
    return float(objective.loss(inputs[None], here.poisons.targets)[0].detach())


def success(seeds: int) -> None:
    split, factory = Digits().load(), ConvNet(width=8)
    victim = Recipe(epochs=12, batch_size=32)
    table: dict[str, list[tuple[float, float, float]]] = {"none": [], "ours": [], "ART": []}
    for seed in range(seeds):
        here = situation(split, factory, Recipe(epochs=2, batch_size=32), 100, 96 / 255, seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        clean = here.poisons.batch().inputs[here.task.attacked_input]
        made = {"none": clean, "ours": ours(here, 100, STARTS, seed), "ART": theirs(here, 100, STARTS)}
        for who, inputs in made.items():
            if float((inputs - clean).abs().max()) > here.epsilon + 1e-5:
                raise SystemExit(f"{who}: got a change beyond ε")
            train = split.train.altered(here.poisons.ids, {here.task.attacked_input: inputs}, here.poisons.targets)
            hits, sure = [], []
            for run in range(3):
                model = Plain().fit(here.task, train, victim, factory, rng=Rng(seed).child("victim", run)).model
                with torch.no_grad():
                    batch: Batch = here.target.batch()
                    answer = here.task.posterior(model.eval(), batch)[0]
                hits.append(float(int(answer.argmax()) == here.intended))
                sure.append(float(answer[here.intended]))
            table[who].append((matching(here, inputs), mean(hits), mean(sure)))
    for who, rows in table.items():
        loss, hits, sure = (mean(column) for column in zip(*rows, strict=True))
        print(f"{who}: matching loss {loss:.3f}, taken for the intended class {hits:.0%}, posterior {sure:.3f}")
    print(f"({seeds} targets, 3 victims each)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["speed", "success"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=10)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"{platform.processor() or platform.machine()}, {chosen.threads} threads, torch {torch.__version__}")
    if "speed" in chosen.parts:
        speed(chosen.rounds, Path(os.environ.get("PALIMPSEST_DATA", "../shared/data")))
    if "success" in chosen.parts:
        success(chosen.seeds)


if __name__ == "__main__":
    main()
