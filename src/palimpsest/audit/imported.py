"""Models that somebody else trained and unlearned take their seats as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from palimpsest.audit.plan import Imported, Plan
from palimpsest.audit.stage import Home, Stage, untrained
from palimpsest.audit.workshop import Made, Workshop
from palimpsest.errors import BadInput
from palimpsest.forget.selection import read_ids, select
from palimpsest.learn.base import Trained
from palimpsest.models.files import hash_weights, load_into, read_weights
from palimpsest.rng import Rng
from palimpsest.store import digest
from palimpsest.types import Examples, Ids, Split


def imported_stage(plan: Plan, imported: Imported, split: Split, shop: Workshop, seed: int) -> Stage:
    """The stage of imported weights: one request, controls given, trained with the plan's recipe, or none."""
    rng = Rng(seed)
    _refuse_untrained(plan.forget[0], split)
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
    return Stage(
        seed,
        split,
        (request,),
        original,
        controls,
        unlearned,
        Home("", plan.learner, plan.recipe),
        settings,
        untrained=untrained(plan, shop, seed),
    )


def _refuse_untrained(selection: str, split: Split) -> None:
    """Raises where ids to be forgotten lie in the parts that the data set set aside: then the weights had another split."""
    how, _, file = selection.partition("=")
    aside = np.concatenate([split.validation.ids, split.test.ids])
    named = read_ids(Path(file)) if how == "ids" else []
    strangers = np.intersect1d(np.asarray(named, dtype=np.str_), aside)
    if len(strangers):
        got = f"{len(strangers)} ids of validation or test records, {str(strangers[0])!r} first"
        do = "say with --train-ids FILE which records the weights were trained on"
        raise BadInput(f"--forget {selection}", got=got, expected="training records", do=do)


def trained_part(split: Split, train_ids: Sequence[str] | None) -> Split:
    """The split whose training records are those that the model was trained on, wherever the data set had put them.

    Raises BadInput for ids that there are not, and where no test records are left.
    """
    if train_ids is None:
        return split
    parts = [split.train, *(part for part in (split.validation, split.test) if np.isin(part.ids, train_ids).any())]
    known = np.concatenate([part.ids for part in parts])
    missing = np.setdiff1d(np.asarray(train_ids, dtype=np.str_), known)
    if len(missing):
        got = f"{len(missing)} ids that are not among the records, {str(missing[0])!r} first"
        raise BadInput("--train-ids", got=got, expected=f"ids such as {str(split.train.ids[0])!r}")
    test = split.test.without(train_ids)
    if not len(test):
        do = "add records that the model has never seen to the data"
        raise BadInput("--train-ids", got="every test record", expected="some records left to test on", do=do)
    train = (parts[0] if len(parts) == 1 else Examples.joined(parts)).only(train_ids)
    mark = digest({"data": split.fingerprint, "trained on": np.sort(train.ids).tolist()})
    return replace(split, train=train, validation=split.validation.without(train_ids), test=test, fingerprint=mark)


def _made(plan: Plan, shop: Workshop, path: Path, ids: Ids, rng: Rng, holds: Ids | None = None) -> Made:
    """A model from a file, keyed by the hash of its weights."""
    state = read_weights(path)
    model = plan.model.build(shop.task, rng)
    load_into(model, state, str(path))
    model.to(plan.device).eval()
    key = hash_weights(model.state_dict())
    trained = Trained(model, shop.task, ids, factory=plan.model, origin=key)
    return Made(key, lambda: trained, ids, ids if holds is None else holds)
