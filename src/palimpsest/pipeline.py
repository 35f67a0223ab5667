"""The flow: data → train → forget → unlearn → attack and verify → measures → verdicts → record → report."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from palimpsest import record as records
from palimpsest import report
from palimpsest.audit.board import Board
from palimpsest.audit.conclude import conclude
from palimpsest.audit.examine import examine
from palimpsest.audit.imported import imported_stage
from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import Stage, stages
from palimpsest.audit.workshop import Workshop
from palimpsest.errors import NothingAudited
from palimpsest.record import Record
from palimpsest.rng import determinism
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.types import Split

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Says nothing."""


def audit(plan: Plan, store: Store, out: Path, *, command: str = "", say: Say = silent) -> Record:
    """Runs the plan, writes record, scores and report into `out`, and returns the record.

    What the store already holds is not made again. Raises BadInput, before anything is trained, where the plan cannot be
    carried out, and NothingAudited where no attack and no verifier completed.
    """
    started, begin = datetime.datetime.now(datetime.UTC), time.perf_counter()
    with determinism(plan.threads):
        split = plan.data.load().to(plan.device)
        shop = Workshop(store, Classification.of(split), split.fingerprint, plan.device)
        say(
            f"{split.name}: {len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test records"
        )
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
    report.write(out)
    say(f"made {shop.made['models']} models and {shop.made['scores']} score sets; the rest came from the store")
    return done


def all_stages(plan: Plan, split: Split, shop: Workshop, seed: int) -> Iterator[Stage]:
    """The stages of one seed: imported weights have one, a plan has one per request."""
    if plan.imported:
        yield imported_stage(plan, plan.imported, split, shop, seed)
    else:
        yield from stages(plan, split, shop, seed)
