"""Single steps of the flow: train one model, unlearn one model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palimpsest.audit.imported import trained_part
from palimpsest.audit.workshop import Workshop
from palimpsest.catalog import identity, name_of
from palimpsest.errors import BadInput
from palimpsest.forget import trained_on
from palimpsest.forget.selection import select
from palimpsest.learn.base import Trained
from palimpsest.models.files import hash_weights, load_into, read_weights, write_weights
from palimpsest.options import Parts
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import check_task
from palimpsest.types import Split


def train(
    made: Parts,
    split: Split,
    store: Store,
    out: Path,
    *,
    exclude: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
) -> Trained:
    """Trains on the training records without those excluded, and writes the weights to `out` (safetensors) and the ids
    of the records beside them.

    With the seed of an audit it gives that audit's original, and with its forget selection excluded the audit's first retrained
    control; a store that has them already is used.
    """
    check_target(out)
    split = made.model.task(split).prepare(split).to(device)
    shop = Workshop(store, made.model.task(split), split.fingerprint, device, split.validation, split.public)
    check_task(made.learner, shop.task.name)
    rng, remaining = Rng(seed), split.train
    for index, selection in enumerate(exclude):
        request = select(selection, remaining, split.classes, rng=rng.child("request", index))
        remaining = shop.task.remove(remaining, request.ids.tolist())
    stream = rng.child("control", len(exclude) - 1, 0) if exclude else rng.child("original")
    trained = shop.fit(made.learner, made.recipe, made.model, remaining, stream).trained
    told = {"learner": identity(made.learner), "recipe": identity(made.recipe), "exclude": list(exclude)}
    _write(out, trained, made, split, seed, told)
    return trained


def unlearn(
    made: Parts,
    split: Split,
    weights: Path,
    forget: Sequence[str],
    out: Path,
    *,
    train_ids: Sequence[str] | None = None,
    recipe_known: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> Trained:
    """Takes the chosen records out of given weights with the one unlearner in `made`, and writes what comes out, and the ids of the
    records that are left.

    train_ids: the records that the weights were trained on; None: those listed beside the weights, or else all training
    records. recipe_known: whether the recipe is
    that of the weights, which retraining needs. Several selections are granted in order.
    """
    check_target(out)
    (unlearner,) = made.unlearners
    if unlearner.needs:
        got, expected = name_of(unlearner), "a method that works from weights alone"
        do = f"it needs what training by {unlearner.needs} left: palimpsest audit --unlearn {got} trains and unlearns"
        raise BadInput("--with", got=got, expected=expected, do=do)
    split, rng = made.model.task(split).prepare(split).to(device), Rng(seed)
    task = made.model.task(split)
    remaining = trained_part(split, trained_on.recall(weights) if train_ids is None else train_ids).train
    model = made.model.build(task, rng)
    load_into(model, read_weights(weights), str(weights))
    model.to(device).eval()
    origin = hash_weights(model.state_dict())
    learner, recipe = (made.learner, made.recipe) if recipe_known else (None, None)
    trained = Trained(
        model, task, remaining.ids, learner, recipe, made.model, origin=origin, validation=split.validation
    )
    check_task(unlearner, task.name)
    for index, selection in enumerate(forget):
        request = select(selection, remaining, split.classes, rng=rng.child("request", index))
        gone = remaining.only(request.ids.tolist())
        remaining = task.remove(remaining, request.ids.tolist())
        trained = unlearner.unlearn(trained, remaining, gone, rng=rng.child("unlearn", index))
    told = {"unlearner": identity(unlearner), "forget": list(forget), "before": origin}
    _write(out, trained, made, split, seed, told)
    return trained


def check_target(out: Path) -> None:
    """Refuses, before anything is computed, a file that weights cannot be written to. Makes nothing."""
    if out.suffix != ".safetensors" or out.is_dir():
        raise BadInput("--out", got=str(out), expected="a file name that ends in .safetensors")
    there = next(place for place in out.absolute().parents if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        got = f"{out}, and no leave to write in {there}"
        raise BadInput("--out", got=got, expected="a place that can be written to", do="choose another folder")


def _write(out: Path, trained: Trained, made: Parts, split: Split, seed: int, told: dict[str, Any]) -> None:
    listed = trained_on.keep(out, trained.ids.tolist())
    about = {"model": identity(made.model), "data": split.fingerprint, "seed": seed, "trained_on": listed, **told}
    write_weights(out, trained.model, {"made_by": json.dumps(about)})
