"""The flow: data → train → forget → unlearn → attack and verify → measures → verdicts → record → report."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from palimpsest import record as records
from palimpsest import report
from palimpsest.audit.apart import make_apart
from palimpsest.audit.board import Board, Drawing, Picture, Recovered
from palimpsest.audit.conclude import conclude
from palimpsest.audit.crew import Bench
from palimpsest.audit.examine import examine, skip
from palimpsest.audit.imported import imported_stage
from palimpsest.audit.plan import Plan
from palimpsest.audit.released import every_stage
from palimpsest.audit.requests import chosen_requests
from palimpsest.audit.runnable import check_tasks, runnable
from palimpsest.audit.separate import together
from palimpsest.audit.stage import Stage, homes
from palimpsest.audit.workshop import SHOWN, Workshop
from palimpsest.catalog import name_of
from palimpsest.errors import NothingAudited, StoreError
from palimpsest.record import Record
from palimpsest.report import panels
from palimpsest.rng import determinism
from palimpsest.store import Store
from palimpsest.types import Examples, Split
from palimpsest.workers import Workers, at_work

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Says nothing."""


def audit(
    plan: Plan,
    store: Store,
    out: Path,
    *,
    split: Split | None = None,
    command: str = "",
    say: Say = silent,
    workers: Workers = Workers(),  # noqa: B008 - frozen
) -> Record:
    """Runs the plan, writes record, scores and report into `out`, and returns the record.

    split: the plan's data, where they have been read already. workers: processes that models and scores are made by, each with the
    plan's number of threads (one where it has none); the record is that of a run without them at as many threads. What the store
    already holds is not made again. A store that redacts is left without attacked inputs of this audit, and the disk without a
    memory map of its data. Raises BadInput, before anything is trained, where the plan cannot be carried out, StoreError where
    store or `out` cannot be written to, and NothingAudited where no attack and no verifier completed.
    """
    plan = replace(plan, threads=workers.threads(plan.threads))
    started, begin = datetime.datetime.now(datetime.UTC), time.perf_counter()
    with determinism(plan.threads), at_work(workers):
        bench = Bench.of(plan, store, split)
        split, shop = bench.split, bench.shop
        say(
            f"{split.name}: {len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test records"
        )
        plan = _refuse_early(plan, split, shop, out)
        board, passed = Board(), []
        if workers.count > 1:
            make_apart(plan, bench, workers)
        for seed in plan.seeds:
            skip(plan, seed, board)
            boards: list[Board] = []
            for stage in all_stages(plan, split, shop, seed):
                where = f"seed {seed}, {stage.requests[-1].selection} ({len(stage.requests[-1])} records)"
                where += f", request {stage.turn + 1} of {len(plan.forget)}" if plan.separate else ""
                where += f", trained by {stage.home.name}" if stage.home.name else ""
                say(f"{where}: original, {len(stage.controls)} controls and {len(stage.unlearned)} methods ready")
                boards.append(board if not plan.separate else Board())
                examine(plan, stage, shop, boards[-1])
                say(f"{where}: attacked and verified, {time.perf_counter() - begin:.0f} s so far")
                passed.append(stage)
                if plan.separate:
                    stage.unload()
            if plan.separate:
                board.take(together(plan, boards))
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
    strips = [strip(drawing, split) for drawing in board.drawings]
    shown: list[panels.Shown] = [panel(picture, split) for picture in board.pictures]
    shown += [*strips, *recoveries(board.recoveries, split)]
    if not store.redact:
        shown += handed_in(plan, passed, split)
    panels.save(out, shown)
    report.write(out)
    if shop.made["redacted"]:
        say(f"took {shop.made['redacted']} sets of attacked or recovered records of earlier runs out of the store")
    others = f" or from {workers.count} workers" if workers.count > 1 else ""
    say(f"made {shop.made['models']} models and {shop.made['scores']} score sets; the rest came from the store{others}")
    return done


def all_stages(plan: Plan, split: Split, shop: Workshop, seed: int) -> Iterator[Stage]:
    """The stages of one seed: imported weights have one, a plan has one per learner and request, and as many behind a release."""
    if plan.imported:
        yield imported_stage(plan, plan.imported, split, shop, seed)
    else:
        for home in homes(plan):
            yield from every_stage(plan, home, split, shop, seed)


def _refuse_early(plan: Plan, split: Split, shop: Workshop, out: Path) -> Plan:
    """The plan as far as it can be carried out. Raises before anything is trained: requests that cannot be granted, a model or a
    method that does not fit, nowhere to write."""
    check_tasks(plan, shop.task)
    if plan.imported is None:
        for seed in plan.seeds:
            chosen_requests(plan, split, shop.task, seed)
        plan = runnable(plan, split, shop.task)
    shop.store.open()
    place = out
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise StoreError(f"{out}: got {place}, which cannot be written to, expected a folder; choose another --out")
    return plan


def panel(picture: Picture, split: Split) -> panels.Panel:
    """A picture for the report, with the original images and the true labels beside the attacked ones."""
    place = picture.place
    ids = picture.ids.tolist()
    shown = named(ids, split)
    return panels.Panel(
        unlearner=place.label,
        target=place.target,
        seed=place.seed,
        epsilon=picture.epsilon,
        classes=split.classes,
        original=next(iter(shown.batch().inputs.values())).cpu().numpy(),
        attacked=picture.attacked,
        label=shown.targets.cpu().numpy(),
        before=picture.before,
        after=picture.after,
        request=place.request,
        ids=tuple(ids),
    )


def strip(drawing: Drawing, split: Split) -> panels.Strip:
    """A drawing for the report."""
    place = drawing.place
    return panels.Strip(
        unlearner=place.label,
        target=place.target,
        seed=place.seed,
        epsilon=drawing.epsilon,
        classes=split.classes,
        images=drawing.images,
        label=drawing.label,
        retained=drawing.retained,
        request=place.request,
        ids=tuple(drawing.ids.tolist()),
    )


def handed_in(plan: Plan, stages: Sequence[Stage], split: Split) -> list[panels.HandedIn]:
    """Some images that an attack handed in for training, of the first seed, beside the records that they were."""
    stage = next((one for one in stages if one.submission is not None and one.seed == plan.seeds[0]), None)
    if stage is None or stage.submission is None or plan.poisoner is None or stage.split.kind != "image":
        return []
    ids = stage.submission.ids[:SHOWN].tolist()
    before, after = split.train.only(ids), stage.split.train.only(ids)
    name = stage.original.trained.task.attacked_input
    images = [part.batch().inputs[name].float().cpu().numpy() for part in (before, after)]
    made = panels.HandedIn(
        seed=stage.seed,
        by=name_of(plan.poisoner),
        classes=stage.split.classes,
        images=np.stack(images, 1),
        label=before.targets.cpu().numpy(),
        given=after.targets.cpu().numpy(),
        ids=tuple(after.ids.tolist()),
    )
    return [made]


def recoveries(found: Sequence[Recovered], split: Split) -> list[panels.Recovery]:
    """What was recovered for the report, beside the true records; of separate requests to one method in one panel."""
    places = dict.fromkeys(one.place for one in found if one.place.target != "placebo")
    made = []
    for place in places:
        mine = [one for one in found if one.place == place]
        ids = [str(name) for one in mine for name in one.ids]
        truth = named(ids, split)
        images = np.concatenate([one.images for one in mine])
        true = next(iter(truth.batch().inputs.values())).cpu().numpy()
        made.append(
            panels.Recovery(
                unlearner=place.label,
                target=place.target,
                seed=place.seed,
                attack=place.by,
                classes=split.classes,
                images=np.stack([true, images], 1),
                label=truth.targets.cpu().numpy(),
                rank=np.concatenate([one.rank for one in mine]),
                request=place.request,
                ids=tuple(ids),
            )
        )
    return made


def named(ids: Sequence[str], split: Split) -> Examples:
    """The records of these ids, in their order, whichever part they are in."""
    found = Examples.joined([part.only(ids) for part in (split.train, split.validation, split.test)])
    order = {name: at for at, name in enumerate(found.ids.tolist())}
    return found.take([order[name] for name in ids])
