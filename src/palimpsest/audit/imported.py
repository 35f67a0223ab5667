"""Models that somebody else trained and unlearned take their seats as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from palimpsest.audit.plan import Imported, Plan
from palimpsest.audit.stage import Stage
from palimpsest.audit.workshop import Made, Workshop
from palimpsest.errors import BadInput
from palimpsest.forget.selection import select
from palimpsest.learn.base import Trained
from palimpsest.models.files import hash_weights, load_into, read_weights
from palimpsest.rng import Rng
from palimpsest.types import Ids, Split


def imported_stage(plan: Plan, imported: Imported, split: Split, shop: Workshop, seed: int) -> Stage:
    """The stage of imported weights: one request, controls given, trained with the plan's recipe, or none."""
    rng = Rng(seed)
    split = trained_part(split, imported.train_ids)
    request = select(plan.forget[0], split.train, split.classes, rng=rng.child("request", 0))
    retain = shop.task.remove(split.train, request.ids.tolist())
    original = _made(plan, shop, imported.original, split.train.ids, rng)
    unlearned = {
        name: _made(plan, shop, path, retain.ids, rng, split.train.ids) for name, path in imported.unlearned.items()
    }
    if imported.retrained is not None:
        controls: tuple[Made, ...] = (_made(plan, shop, imported.retrained, retain.ids, rng),)
    elif imported.retrain:
        fits = (rng.child("control", 0, replica) for replica in range(plan.controls))
        controls = tuple(shop.fit(plan.learner, plan.recipe, plan.model, retain, stream) for stream in fits)
    else:
        controls = ()
    settings = {name: {"weights": path.name} for name, path in imported.unlearned.items()}
    return Stage(seed, split, (request,), original, controls, unlearned, settings)


def trained_part(split: Split, train_ids: tuple[str, ...] | None) -> Split:
    """The split whose training records are those that the model was trained on."""
    if train_ids is None:
        return split
    missing = np.setdiff1d(np.asarray(train_ids, dtype=np.str_), split.train.ids)
    if len(missing):
        got = f"{len(missing)} ids that are not among the training records, {str(missing[0])!r} first"
        raise BadInput("--train-ids", got=got, expected=f"ids such as {str(split.train.ids[0])!r}")
    return replace(split, train=split.train.only(train_ids))


def _made(plan: Plan, shop: Workshop, path: Path, ids: Ids, rng: Rng, holds: Ids | None = None) -> Made:
    """A model from a file, keyed by the hash of its weights."""
    state = read_weights(path)
    model = plan.model.build(shop.task, rng)
    load_into(model, state, str(path))
    model.to(plan.device).eval()
    key = hash_weights(model.state_dict())
    trained = Trained(model, shop.task, ids, factory=plan.model, origin=key)
    return Made(key, lambda: trained, ids, ids if holds is None else holds)
