"""Single steps of the flow: train one model, unlearn one model, take records out of everything that is stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palimpsest import record as records
from palimpsest import report
from palimpsest.audit.imported import trained_part
from palimpsest.audit.workshop import Workshop
from palimpsest.catalog import identity
from palimpsest.data import memory_map
from palimpsest.errors import BadInput, StoreError
from palimpsest.forget.selection import select
from palimpsest.learn.base import Trained
from palimpsest.models.files import hash_weights, load_into, read_weights, write_weights
from palimpsest.options import Parts
from palimpsest.record import Record
from palimpsest.report import panels
from palimpsest.rng import Rng
from palimpsest.store import Store, disk_errors
from palimpsest.task import Classification
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
    """Trains on the training records without those excluded, and writes the weights to `out` (safetensors).

    With the seed of an audit it gives that audit's original, and with its forget selection excluded the audit's first retrained
    control; a store that has them already is used.
    """
    check_target(out)
    split = split.to(device)
    shop = Workshop(store, Classification.of(split), split.fingerprint, device)
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
    """Takes the chosen records out of given weights with the one unlearner in `made`, and writes what comes out.

    train_ids: the records that the weights were trained on; None: all training records. recipe_known: whether the recipe is
    that of the weights, which retraining needs. Several selections are granted in order.
    """
    check_target(out)
    split, rng = split.to(device), Rng(seed)
    task = Classification.of(split)
    remaining = trained_part(split, train_ids).train
    model = made.model.build(task, rng)
    load_into(model, read_weights(weights), str(weights))
    model.to(device).eval()
    origin = hash_weights(model.state_dict())
    learner, recipe = (made.learner, made.recipe) if recipe_known else (None, None)
    trained = Trained(model, task, remaining.ids, learner, recipe, made.model, origin=origin)
    (unlearner,) = made.unlearners
    for index, selection in enumerate(forget):
        request = select(selection, remaining, split.classes, rng=rng.child("request", index))
        gone = remaining.only(request.ids.tolist())
        remaining = task.remove(remaining, request.ids.tolist())
        trained = unlearner.unlearn(trained, remaining, gone, rng=rng.child("unlearn", index))
    told = {"unlearner": identity(unlearner), "forget": list(forget), "before": origin}
    _write(out, trained, made, split, seed, told)
    return trained


def check_target(out: Path) -> None:
    """Refuses, before anything is computed, a file that weights cannot be written to."""
    if out.suffix != ".safetensors" or out.is_dir():
        raise BadInput("--out", got=str(out), expected="a file name that ends in .safetensors")
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)


def _write(out: Path, trained: Trained, made: Parts, split: Split, seed: int, told: dict[str, Any]) -> None:
    about = {"model": identity(made.model), "data": split.fingerprint, "seed": seed, **told}
    write_weights(out, trained.model, {"made_by": json.dumps(about)})


def purge(ids: Sequence[str], store: Store, cache: Path, folder: Path | None = None) -> list[str]:
    """Removes everything stored that still holds one of these records, and says what went, one line each.

    store: weights trained on them (unlearned ones too, unless the method is exact), checkpoints, scores, attacked inputs.
    cache: memory maps of decoded data. folder: an audit's output, whose scores and images go and whose report is written again;
    the record keeps its numbers, which are averages, and the ids of what was forgotten. The source of the data is not touched.
    """
    if not store.root.is_dir():
        raise StoreError(f"{store.root}: got no such folder, expected a store; pass --store")
    record = None if folder is None else records.read(folder)
    said = [f"{entry.kind} {entry.key[:12]} ({entry.bytes:,} bytes)" for entry in store.purge(ids)]
    said += [f"memory map {place.name[:12]}" for place in memory_map.purge_maps(cache, ids)]
    if folder is not None and record is not None:
        said += _purge_output(folder, record, set(ids))
    return said


def _purge_output(folder: Path, record: Record, ids: set[str]) -> list[str]:
    said = []
    with disk_errors(folder):
        for path in sorted((folder / "scores").glob("*.safetensors")):
            if _may_hold(folder, path.stem, ids):
                path.unlink()
                said.append(f"scores {path}")
        # the images are of forgotten records; which ones is not written beside them
        if (folder / panels.FILE).exists() and any(not ids.isdisjoint(request.ids) for request in record.requests):
            (folder / panels.FILE).unlink()
            said.append(f"images {folder / panels.FILE}")
    report.write(folder)
    return said


def _may_hold(folder: Path, key: str, ids: set[str]) -> bool:
    """Whether scores are of one of these records; those that cannot be read might be."""
    try:
        return not ids.isdisjoint(records.read_scores(folder, key).ids.tolist())
    except BadInput:
        return True
