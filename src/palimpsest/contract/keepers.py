"""Checks of what stands in an attack's way: guards of unlearners, releases of models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import torch
from torch import nn

from palimpsest.catalog import make, members
from palimpsest.contract.bench import Applies, Bench, Check, demand
from palimpsest.defend.base import Defence, Guard, Guarded, ModelRelease, OutputRelease
from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import predict
from palimpsest.threat import same_weights

KINDS = {"S2": Guard, "S3": ModelRelease}


def _declares(defence: Defence, bench: Bench) -> None:
    stage = type(defence).stage
    demand(stage in KINDS, f"stage {stage!r}", f"one of {', '.join(KINDS)}")
    demand(
        isinstance(defence, KINDS[stage]), f"{type(defence).__name__} at stage {stage}", f"a {KINDS[stage].__name__}"
    )
    demand(defence.weakens in members("attacks"), f"weakens {defence.weakens!r}", "the name of an attack")
    demand(bool(defence.about), "no `about`", "one line")


def guarded(guard: Guard) -> Guarded:
    """The first method of the catalog that it fits, one pass. Raises BadInput where it fits none."""
    for name in sorted(members("unlearners")):
        with suppress(BadInput):
            return Guarded(make("unlearners", name, {"epochs": 1}), guard)
    raise BadInput(type(guard).__name__, got="a guard that fits no method of the catalog", expected="one that fits one")


def _keeps_the_method(guard: Guard, bench: Bench) -> None:
    """It is an unlearner still: the model that went in as it was, the same weights from the same seed, ids less the forgotten."""
    method = guarded(guard)
    retain, forget = bench.parted("class=0")
    before = copy.deepcopy(bench.original.model)
    one, two, bare = (
        how.unlearn(bench.original, retain, forget, rng=Rng(0)) for how in (method, method, method.unlearner)
    )
    demand(same_weights(before, bench.original.model), "a model that it changed", "the input model as it was")
    demand(same_weights(one.model, two.model), "other weights from the same seed", "the same weights")
    demand(not same_weights(one.model, bare.model), "the weights of the bare method", "other weights than without it")
    demand(set(one.ids) == set(retain.ids), "other ids", "the ids less the forgotten")
    demand(one.task is bench.task, "another task on what comes out", "the task that went in")
    demand(one.cost.samples >= bare.cost.samples, "a lower cost than without it", "a cost that counts it")


def _honest_input_passes_guard(guard: Guard, bench: Bench) -> None:
    method = guarded(guard)
    retain, forget = bench.parted("class=0")
    known, bare = (
        _accuracy(bench, how.unlearn(bench.original, retain, forget, rng=Rng(0)).model)
        for how in (method, method.unlearner)
    )
    demand(known > bare - 0.15, f"retain accuracy {known:.1%} against {bare:.1%} without it", "no collapse (15 points)")


def _accuracy(bench: Bench, model: nn.Module) -> float:
    """On records that are kept."""
    retain = bench.parted("class=0")[0]
    return float((predict(bench.task, model, retain).argmax(1) == retain.targets).float().mean())


def _served(release: ModelRelease, bench: Bench, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """The shared part, and what is served of the original."""
    with Rng(seed).child("weights").ambient():
        part = release.part(bench.task)
    release.prepare(part, bench.task, bench.parted("class=0")[0], rng=Rng(seed), meter=Meter())
    return part, release.release(part, bench.original.model).eval()


def _serves(release: ModelRelease, bench: Bench) -> None:
    """What the model takes and answers, each record on its own; and gradients pass, so that an attacker who knows it can try."""
    before = copy.deepcopy(bench.original.model)
    _, served = _served(release, bench)
    demand(same_weights(before, bench.original.model), "a model that it changed", "the model as it was")
    batch = bench.split.test.batch(torch.arange(6))
    inputs = batch.inputs[bench.task.attacked_input].clone().requires_grad_(True)
    answer = served(inputs)
    wanted = (6, len(bench.split.classes))
    demand(tuple(answer.shape) == wanted, f"answers of shape {tuple(answer.shape)}", f"{wanted}")
    alone = torch.cat([served(inputs[row : row + 1]) for row in range(6)])
    demand(torch.allclose(answer, alone, rtol=1e-4, atol=1e-5), "answers that depend on the batch", "each on its own")
    if isinstance(release, OutputRelease):  # not before those who hold the weights
        return
    (slope,) = torch.autograd.grad(answer.sum(), inputs, allow_unused=True)
    demand(slope is not None and bool(slope.any()), "no gradient at the inputs", "one that is differentiable")


def _seeded(release: ModelRelease, bench: Bench) -> None:
    parts = [_served(release, bench, seed)[0] for seed in (0, 0, 1)]
    demand(same_weights(parts[0], parts[1]), "another part from the same seed", "the same weights")
    if any(True for _ in parts[0].parameters()):
        demand(not same_weights(parts[0], parts[2]), "the same part from another seed", "other weights")


def _honest_input_passes_release(release: ModelRelease, bench: Bench) -> None:
    """Test records of what is kept: at least two thirds of what the model knows is known through it."""
    test = bench.split.test.take(np.flatnonzero(bench.split.test.targets.numpy() != 0))
    _, served = _served(release, bench)
    through, bare = (
        float((predict(bench.task, model, test).argmax(1) == test.targets).float().mean())
        for model in (served, bench.original.model)
    )
    demand(through > bare * 2 / 3, f"test accuracy {through:.1%} against {bare:.1%} without it", "two thirds of it")


KEEPERS: Mapping[str, Mapping[str, Check]] = {
    "defences": {
        "declares its stage and the attack that it weakens": _declares,
        "keeps the method an unlearner": _keeps_the_method,
        "lets honest records through while unlearning": _honest_input_passes_guard,
        "serves what the model takes and answers": _serves,
        "same seed, same release": _seeded,
        "lets honest records through to the model": _honest_input_passes_release,
    }
}


def _only(kind: type, what: str) -> Applies:
    return lambda defence: "" if isinstance(defence, kind) else f"it is no {what}"


LIMITS: Mapping[str, Applies] = {
    "keeps the method an unlearner": _only(Guard, "guard"),
    "lets honest records through while unlearning": _only(Guard, "guard"),
    "serves what the model takes and answers": _only(ModelRelease, "release"),
    "same seed, same release": _only(ModelRelease, "release"),
    "lets honest records through to the model": _only(ModelRelease, "release"),
}
