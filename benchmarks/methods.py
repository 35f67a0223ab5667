"""Every unlearning method, tuned under one budget: how far from retraining, beside the published order.

For each case: `tune` finds settings on seeds, forget sets and records that are not reported; the audit then reports three seeds.
The gap of a method is the mean of |method − retrained| over retain, forget and test accuracy and the membership test's member
rate, in points; mean over seeds with Student's 95 % interval, so that three seeds are not taken for more than they are.
Everything made is in the store: a run that was stopped goes on.

Run: python benchmarks/methods.py CASE … [--cifar FOLDER] [--store FOLDER] [--out FOLDER] [--workers N]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import spearmanr, t

from palimpsest import pipeline, tuning
from palimpsest.options import make_plan, reader
from palimpsest.presets import Choices, choices, read
from palimpsest.record import Cell, Record
from palimpsest.store import Store
from palimpsest.workers import Workers

APPROXIMATE = (
    "finetune", "noisy_gradient_descent", "gradient_ascent", "negative_gradient", "random_label", "salun", "l1_sparse", "influence",
    "single_gradient", "exact_unlearning_k", "catastrophic_forgetting_k", "scrub", "scrub_rewind", "fisher", "ssd",
    "features_and_labels", "boundary_shrink",
)  # fmt: skip
"""For CIFAR-10: not those that need a training of their own (shards, a recorded run), whose originals and controls would be trained
beside the others'."""
BATCHED = (
    "finetune", "noisy_gradient_descent", "gradient_ascent", "negative_gradient", "random_label", "salun", "l1_sparse", "scrub",
    "scrub_rewind", "catastrophic_forgetting_k", "amnesiac", "boundary_shrink",
)  # fmt: skip
"""Methods with a batch size of their own that is not the recipe's."""
PUBLISHED = {
    "negative_gradient": 2.71, "scrub": 4.84, "noisy_gradient_descent": 6.27, "exact_unlearning_k": 7.74,
    "catastrophic_forgetting_k": 8.16, "finetune": 8.22, "ssd": 20.65, "gradient_ascent": 21.25,
}  # fmt: skip
"""Gap to retraining of RURK's Table 1: CIFAR-10, ResNet-18, half of class 0, three seeds, in points."""
PARTS = ("retain_accuracy", "forget_accuracy", "test_accuracy", "confidence_membership.mia_member_rate")


@dataclass(frozen=True)
class Case:
    """What is tuned and reported. trials and tuning seeds are the same for every method of a case."""

    chosen: Mapping[str, Any]
    trials: int
    seeds: int


def cases(cifar: str) -> dict[str, Case]:
    steps = {
        "batch_size": 64
    }  # the recipe's: the published 128 to 512 are for 50,000 images, and leave a few steps an epoch here
    batches = dict.fromkeys(BATCHED, steps)
    report = {"attack": ["confidence_membership"], "verify": ["retrain_gap"], "seeds": 3, "controls": 2, "threads": 1}
    images = {
        "data": f"hub:{cifar}",
        "limit": 5000,
        "model": "resnet18",
        "recipe": {"epochs": 10, "lr": 0.1, "batch_size": 64},
        "settings": {
            "resnet18": {"width": 16},
            **batches,
            **{name: {**steps, "forget_batch_size": 512} for name in ("scrub", "scrub_rewind")},
        },
        "unlearn": list(APPROXIMATE),
        **report,
    }
    digits = {
        "data": "digits",
        "model": "convnet",
        "recipe": {"epochs": 15, "batch_size": 64},
        "settings": {"convnet": {"width": 4}, **batches},
        "unlearn": ["all"],
        **report,
    }
    linear = {**digits, "model": "linear", "settings": batches, "forget": ["random=20"]}
    return {
        "digits-linear": Case(linear, trials=20, seeds=2),
        "digits-class": Case({**digits, "forget": ["class=0"]}, trials=20, seeds=2),
        "digits-half": Case({**digits, "forget": ["class=0:0.5"]}, trials=20, seeds=2),
        "digits-random": Case({**digits, "forget": ["random=0.1"]}, trials=20, seeds=2),
        "cifar10-random": Case({**images, "forget": ["random=0.1"]}, trials=6, seeds=1),
        "cifar10-class": Case({**images, "forget": ["class=0"]}, trials=6, seeds=1),
    }


def tuned(case: Case, store: Store, file: Path, workers: Workers) -> Choices:
    """The case's choices with the settings that tuning found."""
    chosen = choices(case.chosen)
    plan = make_plan(chosen, reader(chosen))
    found = tuning.tune(plan, store, trials=case.trials, seeds=case.seeds, say=say, workers=workers)
    tuning.write(file, chosen, plan, found, seeds=case.seeds, share=0.2)
    return read(str(file))


def gaps(record: Record, label: str, target: str = "unlearned") -> list[dict[str, float]]:
    """Per seed, each part's absolute distance to the retrained controls of the same learner, in points.

    target "retrained": the distance of the first control from the others, which is what retraining differs from itself;
    "original": that of the model before unlearning, which is what doing nothing costs.
    """
    found = []
    for seed in record.seeds:
        mine = [c for c in record.cells if c.unlearner == label and c.seed == seed and c.target == "unlearned"]
        learner = mine[0].learner if mine else record.learner["name"]
        controls = [c for c in record.cells if c.target == "retrained" and c.seed == seed and c.learner == learner]
        if target == "original":
            mine = [c for c in record.cells if c.target == target and c.seed == seed and c.learner == learner]
        if target == "retrained":
            mine = [c for c in controls if c.replica == 0]
            controls = [c for c in controls if c.replica > 0]
        own, others = values(mine), values(controls)
        if all(part in own for part in PARTS):
            found.append({part: 100 * abs(mean(own[part]) - mean(others[part])) for part in PARTS})
    return found


def values(cells: Sequence[Cell]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for cell in cells:
        for row in cell.measures:
            if row.name in PARTS:
                found.setdefault(row.name, []).append(row.value)
    return found


def spread(numbers: Sequence[float]) -> tuple[float, float]:
    """Mean and half of Student's 95 % interval."""
    half = float(t.ppf(0.975, len(numbers) - 1)) * stdev(numbers) / len(numbers) ** 0.5 if len(numbers) > 1 else 0.0
    return mean(numbers), half


def table(name: str, record: Record) -> str:
    """Markdown: methods by their gap, its parts, cost as a share of training, and the published gap."""
    rows: list[tuple[float, str]] = []
    order: list[tuple[float, float]] = []
    labels = list(dict.fromkeys(cell.unlearner for cell in record.cells if cell.unlearner))
    plain = {"retrained": "*retrained against itself*", "original": "*original*"}
    for label in [*plain, *labels]:
        each = gaps(record, "", label) if label in plain else gaps(record, label)
        searched = label in record.settings.get("tuned", {})
        shown = plain.get(label) or f"{label}{'' if searched else ' (not tuned)'}"
        if len(each) < len(record.seeds):
            reasons = {cell.reason for cell in record.cells if cell.unlearner == label and cell.reason}
            rows.append((1e9, f"| {shown} | none: {'; '.join(sorted(reasons))} | | | | | | |"))
            continue
        total, half = spread([mean(one.values()) for one in each])
        parts = " | ".join(f"{mean(one[part] for one in each):.1f}" for part in PARTS)
        published = PUBLISHED.get(label)
        if published is not None:
            order.append((total, published))
        cost = "" if label in plain else f"{100 * share(record, label):.1f} %"
        rows.append((total, f"| {shown} | {total:.1f} ± {half:.1f} | {parts} | {cost} | {published or ''} |"))
    head = "| method | gap | retain | forget | test | member rate | gradients | published |\n|---|---|---|---|---|---|---|---|"
    lines = [row for _, row in sorted(rows)]
    agreed = spearmanr(*zip(*order, strict=True))[0]
    rank = f"Spearman's rank correlation with the published order ({len(order)} methods): {agreed:.2f}"
    return "\n".join([f"### {name}", "", head, *lines, "", rank])


def share(record: Record, label: str) -> float:
    """Gradient evaluations of a method as a share of those of training."""

    mine = [c for c in record.cells if c.target == "unlearned" and c.unlearner == label and c.cost]
    original = [c for c in record.cells if c.target == "original" and c.learner == mine[0].learner]
    return mean(c.cost["samples"] for c in mine) / mean(c.cost["samples"] for c in original)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("case", nargs="+")
    words.add_argument("--cifar", default="../shared/data/cifar10")
    words.add_argument("--store", type=Path, default=Path(".palimpsest/benchmarks"))
    words.add_argument("--out", type=Path, default=Path("out/methods"))
    words.add_argument("--workers", type=int, default=1)
    given = words.parse_args()
    known = cases(given.cifar)
    for name in given.case:
        store, folder = Store(given.store), given.out / name
        chosen = tuned(known[name], store, folder / "tuned.json", Workers(given.workers))
        plan = make_plan(chosen, reader(chosen))
        told = f"python benchmarks/methods.py {name}"
        record = pipeline.audit(plan, store, folder, command=told, say=say, workers=Workers(given.workers))
        text = table(name, record)
        (folder / "table.md").write_text(text + "\n", encoding="utf-8")
        say(text)


if __name__ == "__main__":
    main()
