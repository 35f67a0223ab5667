"""The flow: data → train → forget → unlearn → attack and verify → measures → verdicts → record → report."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from palimpsest import record as records
from palimpsest import report
from palimpsest.audit.board import Board, Picture
from palimpsest.audit.conclude import conclude
from palimpsest.audit.examine import examine
from palimpsest.audit.imported import imported_stage, trained_part
from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import Stage, chosen_requests, stages
from palimpsest.audit.workshop import Workshop
from palimpsest.errors import NothingAudited, StoreError
from palimpsest.record import Record
from palimpsest.report import panels
from palimpsest.rng import Rng, determinism
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.types import Split

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Says nothing."""


def audit(
    plan: Plan, store: Store, out: Path, *, split: Split | None = None, command: str = "", say: Say = silent
) -> Record:
    """Runs the plan, writes record, scores and report into `out`, and returns the record.

    split: the plan's data, where they have been read already. What the store already holds is not made again. Raises
    BadInput, before anything is trained, where the plan cannot be carried out, StoreError where store or `out` cannot be
    written to, and NothingAudited where no attack and no verifier completed.
    """
    started, begin = datetime.datetime.now(datetime.UTC), time.perf_counter()
    with determinism(plan.threads):
        split = (split or plan.data.load()).to(plan.device)
        if plan.imported:
            split = trained_part(split, plan.imported.train_ids)
        shop = Workshop(store, Classification.of(split), split.fingerprint, plan.device)
        say(
            f"{split.name}: {len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test records"
        )
        _refuse_early(plan, split, shop, out)
        board, passed = Board(), []
        for seed in plan.seeds:
            for stage in all_stages(plan, split, shop, seed):
                where = f"seed {seed}, {stage.requests[-1].selection} ({len(stage.requests[-1])} records)"
                say(f"{where}: original, {len(stage.controls)} controls and {len(stage.unlearned)} methods ready")
                examine(plan, stage, shop, board)
                say(f"{where}: attacked and verified, {time.perf_counter() - begin:.0f} s so far")
                passed.append(stage)
        if not any(cell.status == "ok" for cell in board.cells):
            reasons = "; ".join(sorted({cell.reason for cell in board.cells}))
            raise NothingAudited(f"got no completed attack or verifier, expected at least one: {reasons}")
        done = conclude(
            plan,
            split,
            board,
            passed,
            command=command,
            started=f"{started:%Y-%m-%d %H:%M:%S} UTC",
            redacted=store.redact,
        )
    done = done.model_copy(update={"seconds": round(time.perf_counter() - begin, 1)})
    records.write(done, out, board.scores)
    panels.save(out, [panel(picture, split) for picture in board.pictures])
    report.write(out)
    say(f"made {shop.made['models']} models and {shop.made['scores']} score sets; the rest came from the store")
    return done


def all_stages(plan: Plan, split: Split, shop: Workshop, seed: int) -> Iterator[Stage]:
    """The stages of one seed: imported weights have one, a plan has one per request."""
    if plan.imported:
        yield imported_stage(plan, plan.imported, split, shop, seed)
    else:
        yield from stages(plan, split, shop, seed)


def _refuse_early(plan: Plan, split: Split, shop: Workshop, out: Path) -> None:
    """Raises before anything is trained: requests that cannot be granted, a model that does not fit, nowhere to write."""
    if plan.imported is None:
        for seed in plan.seeds:
            chosen_requests(plan, split, shop.task, seed)
        plan.learner.start(plan.model, shop.task, Rng(plan.seeds[0]))
    shop.store.open()
    place = out
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise StoreError(f"{out}: got {place}, which cannot be written to, expected a folder; choose another --out")


def panel(picture: Picture, split: Split) -> panels.Panel:
    """A picture for the report, with the original images and the true labels beside the attacked ones."""
    place = picture.place
    source = split.test if place.target == "placebo" else split.train
    records = source.only(picture.ids.tolist())
    return panels.Panel(
        unlearner=place.label,
        target=place.target,
        seed=place.seed,
        epsilon=picture.epsilon,
        classes=split.classes,
        original=next(iter(records.batch().inputs.values())).cpu().numpy(),
        attacked=picture.attacked,
        label=records.targets.cpu().numpy(),
        before=picture.before,
        after=picture.after,
        request=place.request,
    )
