"""The input-optimisation engine against torchattacks, foolbox and ART: the same loss, weights, records, batch and threads.

speed: image-steps a second, one image-step being one executed forward-backward pass of one record. Twenty steps of signed PGD on
    the KL divergence from the original's posterior. Peers run twice: under equal conditions (parameters frozen, evaluation
    mode, channels_last) and as their users run them (the module as it comes: contiguous, parameters that take gradients,
    the library's usual call). Ours takes the same batch, looks at every iterate, and stops nothing early.
accuracy: seconds until the attack has recovered as many forgotten records as 100 steps of the paper's attack do, less 0.5
    points. CIFAR-10, 10,000 images, ResNet-18 of width 16, class 0 forgotten by fine-tuning, ε 8/255. Each side takes the
    fewest of 5, 10, 20, 50 and 100 steps that get there, peers at the best of three step sizes and under equal
    conditions; ours is `stop=recovered, step_rule=decaying`, its preparation included. A retrained model is reported apart.

Run: make bench-env && .venv-bench/bin/python benchmarks/uma.py [speed] [accuracy] [--rounds 7] [--threads 2]
The data folder is PALIMPSEST_DATA, else ../shared/data; trained models are kept in .palimpsest/benchmarks.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import art
import eagerpy
import foolbox
import torch
import torch.nn.functional as F
import torchattacks
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from palimpsest.attack.folding import frozen
from palimpsest.attack.residual.base import kl, recovered
from palimpsest.attack.search import Found, prepare, search
from palimpsest.audit.workshop import Workshop
from palimpsest.data.hub import Hub
from palimpsest.forget.selection import select
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.convnet import ConvNet
from palimpsest.models.resnet18 import ResNet18
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.unlearn.finetune import Finetune

EPSILON, STEP = 8 / 255, 1 / 255
EDGES = (torch.zeros(()), torch.ones(()))
SPEED = (
    ("ConvNet width 16", ConvNet(16), 128),
    ("ResNet-18 width 16", ResNet18(16), 128),
    ("ResNet-18 width 64", ResNet18(64), 32),
)
WANTED = {"equal": 1.2, "users": 1.4, "accuracy": 3.0}

Perturb = Callable[[Tensor, Tensor, float, int], Tensor]
"""(records, the original's posteriors, step size, steps) → attacked records."""


# ---- the peers, each with the KL divergence from given posteriors at its documented extension point


def with_torchattacks(model: nn.Module) -> Perturb:
    """Its cross-entropy with soft targets has the KL divergence's gradient; targets come from the target-map function."""

    def perturb(inputs: Tensor, wanted: Tensor, step: float, steps: int) -> Tensor:
        attack = torchattacks.PGD(model, eps=EPSILON, alpha=step, steps=steps, random_start=True)
        attack.set_mode_targeted_by_function(lambda images, labels: labels, quiet=True)
        adversarial: Tensor = attack(inputs, wanted)
        return adversarial

    return perturb


class _FoolboxPgd(foolbox.attacks.LinfPGD):
    """`get_loss_fn` "can be overridden by users"."""

    wanted: Tensor

    def get_loss_fn(self, model, labels):
        return lambda inputs: eagerpy.astensor(kl(model(inputs).raw, self.wanted)).sum()


def with_foolbox(model: nn.Module) -> Perturb:
    def perturb(inputs: Tensor, wanted: Tensor, step: float, steps: int) -> Tensor:
        attack = _FoolboxPgd(abs_stepsize=step, steps=steps, random_start=True)
        attack.wanted = wanted
        goal = foolbox.criteria.TargetedMisclassification(wanted.argmax(1))
        adversarial: Tensor = attack.run(foolbox.PyTorchModel(model, bounds=(0, 1)), inputs, goal, epsilon=EPSILON)
        return adversarial

    return perturb


class _Kl(nn.Module):
    def forward(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        return kl(outputs, wanted).sum()


def with_art(model: nn.Module) -> Perturb:
    """`loss` is the classifier's parameter. It takes and gives NumPy arrays, and asks for success at the end: its usual call."""

    def perturb(inputs: Tensor, wanted: Tensor, step: float, steps: int) -> Tensor:
        shape, classes = tuple(inputs.shape[1:]), wanted.shape[1]
        classifier = PyTorchClassifier(model, loss=_Kl(), input_shape=shape, nb_classes=classes, clip_values=(0.0, 1.0))
        attack = ProjectedGradientDescentPyTorch(
            classifier,
            eps=EPSILON,
            eps_step=step,
            max_iter=steps,
            targeted=True,
            num_random_init=1,
            batch_size=len(inputs),
            verbose=False,
        )
        return torch.from_numpy(attack.generate(inputs.numpy(), wanted.numpy()))

    return perturb


PEERS = {"torchattacks": with_torchattacks, "foolbox": with_foolbox, "ART": with_art}


def ours(model: nn.Module, inputs: Tensor, wanted: Tensor, **changes) -> Found:
    options = {"step_size": STEP, "low": EDGES[0], "high": EDGES[1], "epsilon": EPSILON, "rng": Rng(0)}
    return search(model, inputs, wanted, kl, **{**options, **changes})


# ---- speed


@dataclass(frozen=True)
class Rates:
    """Image-steps a second, one entry per round."""

    ours: list[float]
    peers: dict[str, list[float]]

    def ratio(self) -> tuple[str, float]:
        """The best peer (by median), and the median over rounds of ours to it."""
        best = max(self.peers, key=lambda name: median(self.peers[name]))
        return best, median(a / b for a, b in zip(self.ours, self.peers[best], strict=True))


def measured_rates(factory: Model, batch: int, rounds: int, steps: int) -> dict[str, Rates]:
    task = Classification(10, (3, 32, 32), (0.5,) * 3, (0.25,) * 3, EDGES)
    inputs = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = factory.build(task, Rng(0)).train()
    with torch.no_grad():
        model(inputs)  # statistics for batch norm
    model = model.eval()
    wanted = torch.rand(batch, 10, generator=torch.Generator().manual_seed(1)).mul(4).softmax(1)
    last = frozen(model).to(memory_format=torch.channels_last)
    arranged = inputs.contiguous(memory_format=torch.channels_last)
    begin = time.perf_counter()
    ready = prepare(model, inputs)
    print(f"  prepared once in {time.perf_counter() - begin:.2f} s, layout {ready.layout}")
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(ready, inputs, wanted, steps=steps, batch_size=batch),
    }
    for name, peer in PEERS.items():
        equal, users = peer(last), peer(model)
        runs[f"equal {name}"] = lambda attack=equal: attack(arranged, wanted, STEP, steps)
        runs[f"users {name}"] = lambda attack=users: attack(inputs, wanted, STEP, steps)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:  # the first round warms up
                rates[name].append(batch * steps / (time.perf_counter() - begin))
    return {
        kind: Rates(rates["ours"], {name: rates[f"{kind} {name}"] for name in PEERS}) for kind in ("equal", "users")
    }


def speed(rounds: int, steps: int) -> None:
    for name, factory, batch in SPEED:
        print(f"\n{name}, batch {batch}, {steps} steps, image-steps a second, medians of {rounds} rounds")
        for kind, rates in measured_rates(factory, batch, rounds, steps).items():
            figures = ", ".join(f"{peer} {median(values):.0f}" for peer, values in rates.peers.items())
            best, ratio = rates.ratio()
            label = "equal conditions" if kind == "equal" else "as users run them"
            print(f"  {label}: ours {median(rates.ours):.0f}; {figures}")
            print(
                f"  ratio to the best peer ({best}), {label}: {ratio:.2f} (wanted {WANTED[kind]}){verdict(ratio, kind)}"
            )


# ---- time to the same attacked accuracy


@dataclass(frozen=True)
class Subject:
    """An unlearned or retrained model with the records that it forgot, and the original's posteriors for them."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    wanted: Tensor

    @torch.no_grad()
    def accuracy(self, inputs: Tensor) -> float:
        """Per cent of records whose true class the model names."""
        return 100 * float((self.model(inputs).argmax(1) == self.targets).float().mean())


def subjects(records: int, limit: int, width: int) -> dict[str, Subject]:
    """Trained once and kept: the same artifacts that an audit of these settings would make."""
    folder = Path(os.environ.get("PALIMPSEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    split = Hub(path=str(folder / "cifar10"), limit=limit).load()
    shop = Workshop(Store(Path(".palimpsest/benchmarks")), Classification.of(split), split.fingerprint)
    recipe, factory = Recipe(epochs=15, lr=0.2), ResNet18(width)
    request = select("class=0", split.train, split.classes, rng=Rng(0))
    retain, forget = split.train.without(request.ids), split.train.only(request.ids)
    original = shop.fit(Plain(), recipe, factory, split.train, Rng(0).child("original"))
    made = {
        "fine-tuned": shop.unlearn(
            Finetune(lr=0.04, epochs=4, batch_size=64), original, retain, forget, Rng(0).child("unlearn")
        ),
        "retrained": shop.fit(Plain(), recipe, factory, retain, Rng(0).child("retrained")),
    }
    chosen = forget.take(list(range(min(records, len(forget))))).batch()
    inputs = chosen.inputs["image"] if "image" in chosen.inputs else next(iter(chosen.inputs.values()))
    with torch.no_grad():
        wanted = F.softmax(original.trained.model.eval()(inputs), 1)
    return {
        name: Subject(
            frozen(one.trained.model).to(memory_format=torch.contiguous_format), inputs, chosen.targets, wanted
        )
        for name, one in made.items()
    }


def in_batches(attack: Perturb, subject: Subject, step: float, steps: int, batch: int = 128) -> Tensor:
    parts = zip(subject.inputs.split(batch), subject.wanted.split(batch), strict=True)
    return torch.cat([attack(inputs, wanted, step, steps) for inputs, wanted in parts])


def quickest(name: str, subject: Subject, model: nn.Module, goal: float) -> tuple[str, Callable[[], Tensor]] | None:
    """A peer's fewest steps that reach the goal, and a run of it; None where 100 do not."""
    attack = PEERS[name](model)
    for steps in (5, 10, 20, 50, 100):
        for step in (STEP, 2 * STEP, EPSILON / 4):
            reached = subject.accuracy(in_batches(attack, subject, step, steps))
            if reached >= goal:
                told = f"{name}: {steps} steps of {step * 255:g}/255, {reached:.1f} %"
                return told, lambda step=step, steps=steps: in_batches(attack, subject, step, steps)
    return None


def to_accuracy(name: str, subject: Subject, rounds: int) -> None:
    full = subject.accuracy(ours(subject.model, subject.inputs, subject.wanted, steps=100).inputs)
    goal = full - 0.5
    print(f"\n{name}: {subject.accuracy(subject.inputs):.1f} % unattacked, {full:.1f} % after 100 steps of 1/255")
    last = frozen(subject.model).to(memory_format=torch.channels_last)
    runs: dict[str, Callable[[], object]] = {}
    for steps in (5, 10, 20, 50, 100):

        def quick(steps: int = steps) -> Found:
            fast = {"steps": steps, "stop": recovered, "step_rule": "decaying"}
            return ours(subject.model, subject.inputs, subject.wanted, **fast)

        found = quick()
        reached = subject.accuracy(found.inputs)
        if reached >= goal:
            passes = found.evaluations / len(subject.inputs)
            print(f"  ours: at most {steps} steps, {passes:.1f} passes a record, {reached:.1f} %")
            runs["ours"] = quick
            break
    for peer in PEERS:
        best = quickest(peer, subject, last, goal)
        if best is None:
            print(f"  {peer}: 100 steps do not reach {goal:.1f} %")
        else:
            print(f"  {best[0]}")
            runs[peer] = best[1]
    if "ours" not in runs or len(runs) == 1:
        print("  no ratio: one side does not get there")
        return
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[key].append(time.perf_counter() - begin)
    best = min((key for key in runs if key != "ours"), key=lambda key: median(seconds[key]))
    ratio = median(b / a for a, b in zip(seconds["ours"], seconds[best], strict=True))
    print("  seconds: " + ", ".join(f"{key} {median(values):.1f}" for key, values in seconds.items()))
    apart = name == "retrained"
    told = "" if apart else f" (wanted {WANTED['accuracy']}){verdict(ratio, 'accuracy')}"
    print(f"  ratio to the best peer ({best}), time to the same accuracy: {ratio:.2f}{told}")


def verdict(ratio: float, kind: str) -> str:
    return "" if ratio >= WANTED[kind] else "  <-- NOT REACHED"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["speed", "accuracy"], help="speed, accuracy, or both")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="of the speed part")
    parser.add_argument("--records", type=int, default=500, help="of the accuracy part")
    parser.add_argument("--limit", type=int, default=10_000, help="images of the accuracy part")
    parser.add_argument("--width", type=int, default=16, help="of the accuracy part's ResNet-18")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    peers = f"torchattacks {torchattacks.__version__}, foolbox {foolbox.__version__}, ART {art.__version__}"
    print(
        f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}, {peers}"
    )
    if "speed" in options.parts:
        speed(options.rounds, options.steps)
    if "accuracy" in options.parts:
        for name, subject in subjects(options.records, options.limit, options.width).items():
            to_accuracy(name, subject, min(3, options.rounds))


if __name__ == "__main__":
    main()
