"""Checks of what makes things: data sets, models, learners, unlearners."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from palimpsest import catalog
from palimpsest.contract.bench import Applies, Bench, Check, demand, factory
from palimpsest.data.base import Dataset
from palimpsest.language import TOKENS
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.loop import Checkpoint
from palimpsest.models.base import Model
from palimpsest.rng import Rng
from palimpsest.store import Artifact, Store
from palimpsest.threat import same_weights
from palimpsest.types import Batch, Split
from palimpsest.unlearn.base import Unlearner

# Data


def _parts_are_apart(dataset: Dataset, bench: Bench) -> None:
    split = dataset.load()
    demand(isinstance(split, Split), type(split).__name__, "a Split")
    parts = (split.train, split.validation, split.test)
    ids = np.concatenate([part.ids for part in parts])
    demand(len(set(ids.tolist())) == len(ids), "an id in two parts, or twice", "disjoint ids")
    demand(all(len(part) for part in parts), "an empty part", "training, validation and test records")


def _records_fit(dataset: Dataset, bench: Bench) -> None:
    split = dataset.load()
    for part in (split.train, split.validation, split.test):
        for start in range(0, len(part), 1000):
            _batch_fits(part.batch(torch.arange(start, min(start + 1000, len(part)))), split)


def _batch_fits(batch: Batch, split: Split) -> None:
    for name, values in batch.inputs.items():
        told = values.is_floating_point() or split.kind == TOKENS
        demand(told, f"{name} as {values.dtype}", "floats, uint8, or tokens")
        demand(bool(torch.isfinite(values).all()), f"NaN or infinity in {name}", "finite inputs")
    shape = tuple(next(iter(batch.inputs.values())).shape[1:])
    demand(shape == split.shape, f"another shape in a part: {shape}", f"{split.shape}")
    low, high = int(batch.targets.min()), int(batch.targets.max())
    demand(0 <= low <= high < len(split.classes), f"classes {low} to {high}", "as many as are named")


def _same_twice(dataset: Dataset, bench: Bench) -> None:
    one, two = dataset.load(), dataset.load()
    demand(one.fingerprint == two.fingerprint, "two fingerprints of the same data", "one")
    for mine, theirs in ((one.train, two.train), (one.validation, two.validation), (one.test, two.test)):
        demand(mine.ids.tolist() == theirs.ids.tolist(), "other ids, or in another order", "the same ids twice")
        demand(torch.equal(mine.targets, theirs.targets), "other classes of the same ids", "the same twice")


def _ids_name_records(dataset: Dataset, bench: Bench) -> None:
    """With fewer records each keeps its id: an id is a name, not a position."""
    whole = dataset.load()
    limited = replace(dataset, limit=max(20, (len(whole.train) + len(whole.validation)) // 2)).load()
    for part, of in ((limited.train, whole.train), (limited.validation, whole.validation), (limited.test, whole.test)):
        same = of.only(part.ids.tolist())
        demand(same.ids.tolist() == part.ids.tolist(), "other ids under a limit", "the ids without it, fewer")
        for mine, theirs in zip(part.batches(1000), same.batches(1000), strict=True):
            equal = torch.equal(mine.targets, theirs.targets)
            equal = equal and all(torch.equal(values, theirs.inputs[name]) for name, values in mine.inputs.items())
            demand(equal, "another record under the same id when there is a limit", "ids that name records")


# Models


def _answers(model: Model, bench: Bench) -> None:
    built = model.build(bench.task, Rng(0)).eval()
    for count in (1, 3):
        logits = bench.task.outputs(built, bench.split.train.batch(torch.arange(count)))
        wanted = (count, *bench.task.answer)
        demand(tuple(logits.shape) == wanted, f"answers of shape {tuple(logits.shape)}", f"{wanted}")


def _slopes(model: Model, bench: Bench) -> None:
    built = model.build(bench.task, Rng(0)).eval()
    batch = bench.split.train.batch(torch.arange(4))
    inputs = bench.task.perceived(built, batch).detach().clone().requires_grad_(True)
    loss = bench.task.loss_at(built, batch, inputs)
    slopes = torch.autograd.grad(loss, [inputs, *built.parameters()], allow_unused=True)
    demand(slopes[0] is not None and bool(slopes[0].any()), "no gradient at the inputs", "a differentiable model")
    demand(any(slope is not None and bool(slope.any()) for slope in slopes[1:]), "no gradient at any weight", "one")


def _seeded(model: Model, bench: Bench) -> None:
    torch.manual_seed(0)
    one = model.build(bench.task, Rng(0))
    torch.manual_seed(1)
    two = model.build(bench.task, Rng(0))
    demand(same_weights(one, two), "other weights from the same stream", "the same weights")


def _drawn(model: Model, bench: Bench) -> None:
    one, other = model.build(bench.task, Rng(0)), model.build(bench.task, Rng(1))
    demand(not same_weights(one, other), "the same weights from another stream", "other initial weights")


def _travels(model: Model, bench: Bench) -> None:
    one, two = model.build(bench.task, Rng(0)), model.build(bench.task, Rng(1))
    two.load_state_dict(one.state_dict())
    batch = bench.split.train.batch(torch.arange(4))
    answers = [bench.task.posterior(built.eval(), batch) for built in (one, copy.deepcopy(two))]
    demand(torch.equal(*answers), "other answers from the same weights", "a model that its state dict determines")


def _judges_alone(model: Model, bench: Bench) -> None:
    """In evaluation mode the answer to a record does not depend on what else is in its batch."""
    built = model.build(bench.task, Rng(0)).eval()
    with torch.no_grad():
        together = bench.task.outputs(built, bench.split.train.batch(torch.arange(6)))
        alone = torch.cat([bench.task.outputs(built, bench.split.train.batch(torch.tensor([row]))) for row in range(6)])
    far = float((together - alone).abs().max())
    demand(torch.allclose(together, alone, rtol=1e-4, atol=1e-5), f"logits that differ by {far:.2g}", "each on its own")


# Learners


def _learns(learner: Learner, bench: Bench) -> None:
    trained = _fit(learner, bench)
    demand(
        sorted(trained.ids.tolist()) == sorted(bench.split.train.ids.tolist()), "other ids", "those it was trained on"
    )
    demand(not trained.model.training, "a model in training mode", "evaluation mode")
    error = bench.task.error(trained.model, bench.split.train.batch()).mean().item()
    demand(error < 0.5, f"{error:.0%} of the training records wrong", "a model that learnt them")


def _learns_again(learner: Learner, bench: Bench) -> None:
    torch.manual_seed(0)
    one = _fit(learner, bench)
    torch.manual_seed(1)
    ambient = torch.get_rng_state()
    two = _fit(learner, bench)
    demand(same_weights(one.model, two.model), "other weights", "the same from one seed")
    demand(torch.equal(ambient, torch.get_rng_state()), "draws from torch's global generator", "draws from `rng` alone")


class _Interrupted(Exception):
    """Raised once a checkpoint is on the disk."""


class _Dying(Store):
    """A store in which a run dies right after its first checkpoint."""

    def put(self, *args: Any, **named: Any) -> Artifact:
        super().put(*args, **named)
        raise _Interrupted


class _Watched(Store):
    """A store that leaves a mark once a checkpoint was read from it."""

    def get(self, kind: str, spec: Mapping[str, Any]) -> Artifact | None:
        found = super().get(kind, spec)
        if found is not None:
            (self.root / "read").touch()
        return found


def _resumes(learner: Learner, bench: Bench) -> None:
    spec = {"contract": catalog.name_of(learner)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            _fit(learner, bench, Checkpoint(_Dying(Path(folder)), spec, every_seconds=0.0))
        except _Interrupted:
            pass
        else:
            demand(False, "no checkpoint in a run of several epochs", "one after each epoch when the time has come")
        resumed = _fit(learner, bench, Checkpoint(_Watched(Path(folder)), spec, every_seconds=0.0))
        demand((Path(folder) / "read").exists(), "a run that began anew", "one that goes on from its checkpoint")
    whole = _fit(learner, bench)
    demand(same_weights(resumed.model, whole.model), "other weights after a stop", "the same weights")
    kept = resumed.kept.keys() == whole.kept.keys()
    kept = kept and all(torch.equal(value, whole.kept[name]) for name, value in resumed.kept.items())
    demand(kept, "other artifacts kept after a stop", "the same artifacts")


def _fit(learner: Learner, bench: Bench, checkpoint: Checkpoint | None = None) -> Trained:
    stream = Rng(0).child("original")
    small = factory(learner)
    begun = small.build(bench.task, Rng(7)).state_dict() if learner.pretraining else None
    return learner.fit(
        bench.task, bench.split.train, bench.recipe, small, rng=stream, checkpoint=checkpoint, initial=begun
    )


# Unlearners


def _input_untouched(unlearner: Unlearner, bench: Bench) -> None:
    given = bench.original.with_model(copy.deepcopy(bench.original.model))
    state = [(p.requires_grad, p.grad is None) for p in given.model.parameters()]
    _unlearned(unlearner, bench, given)
    same = same_weights(given.model, bench.original.model)
    demand(same, "changed weights of the model that went in", "a copy to be changed")
    after = [(p.requires_grad, p.grad is None) for p in given.model.parameters()]
    demand(state == after, "changed requires_grad or gradients", "them as they were")
    demand(not given.model.training, "training mode of the model that went in", "it as it was")


def _moves(unlearner: Unlearner, bench: Bench) -> None:
    after = _unlearned(unlearner, bench)
    demand(not same_weights(after.model, bench.original.model), "the weights that went in", "weights that moved")
    demand(not after.model.training, "a model in training mode", "evaluation mode")
    wanted = np.setdiff1d(bench.original.ids, bench.parted("class=0")[1].ids)
    demand(
        sorted(after.ids.tolist()) == sorted(wanted.tolist()), "ids with forgotten ones among them", "the retain ids"
    )


def _unlearns_again(unlearner: Unlearner, bench: Bench) -> None:
    torch.manual_seed(0)
    one = _unlearned(unlearner, bench)
    torch.manual_seed(1)
    ambient = torch.get_rng_state()
    two = _unlearned(unlearner, bench)
    demand(same_weights(one.model, two.model), "other weights", "the same from the same stream")
    demand(torch.equal(ambient, torch.get_rng_state()), "draws from torch's global generator", "draws from `rng` alone")


def _tells_cost(unlearner: Unlearner, bench: Bench) -> None:
    """Seconds always; samples and gradient evaluations where the model was run with gradients on."""
    passes = [0]

    def count(*_: object) -> None:
        passes[0] += torch.is_grad_enabled()

    hook = register_module_forward_pre_hook(count)  # of every module: a method may build a model of its own
    try:
        cost = _unlearned(unlearner, bench).cost
    finally:
        hook.remove()
    demand(cost.seconds > 0, f"{cost.seconds} s", "the time that it took")
    counted = cost.samples > 0 and cost.gradient_evaluations > 0
    demand(counted or not passes[0], f"{cost} after {passes[0]} passes", "every pass counted with `meter`")


def _exact_if_so_called(unlearner: Unlearner, bench: Bench) -> None:
    """What retraining makes does not depend on weights that the forgotten records had a part in."""
    scrambled = copy.deepcopy(bench.original.model)
    with torch.no_grad():
        for parameter in scrambled.parameters():
            parameter.neg_()
    two = unlearner.unlearn(bench.original.with_model(scrambled), *bench.parted("class=0"), rng=Rng(1))
    independent = same_weights(_unlearned(unlearner, bench).model, two.model)
    demand(independent, "a result that depends on the original's weights", "none, as the guarantee is exact")


def _unlearned(unlearner: Unlearner, bench: Bench, trained: Trained | None = None) -> Trained:
    """From a copy of the original, which a careless method cannot spoil for the other checks."""
    trained = trained or bench.original.with_model(copy.deepcopy(bench.original.model))
    return unlearner.unlearn(trained, *bench.parted("class=0"), rng=Rng(1))


MAKERS: Mapping[str, Mapping[str, Check]] = {
    "data": {
        "parts have disjoint ids": _parts_are_apart,
        "records have one shape, finite inputs and known classes": _records_fit,
        "read twice it is the same": _same_twice,
        "ids name records, not positions": _ids_name_records,
    },
    "models": {
        "answers with one row of logits, or one image, a record": _answers,
        "has gradients at its inputs and weights": _slopes,
        "same stream, same weights": _seeded,
        "another stream, other weights": _drawn,
        "its state dict is the whole model": _travels,
        "answers to a record do not depend on its batch": _judges_alone,
    },
    "learners": {
        "learns, and says from what": _learns,
        "same seed, same weights": _learns_again,
        "resumes to the same weights": _resumes,
    },
    "unlearners": {
        "leaves the model that goes in as it is": _input_untouched,
        "moves the weights and drops the forgotten ids": _moves,
        "same stream, same weights": _unlearns_again,
        "reports its cost": _tells_cost,
        "is exact if it says so": _exact_if_so_called,
    },
}

LIMITS: Mapping[str, Applies] = {
    "another stream, other weights": lambda model: "its weights are given, not drawn" if model.pretrained else "",
    "is exact if it says so": lambda unlearner: (
        "it does not say that it is exact"
        if unlearner.guarantee != "exact"
        else f"it goes on from what the learner {unlearner.needs} kept"
        if unlearner.needs
        else ""
    ),
}
"""Why a check has nothing to say of some members."""
