"""A very small audit that the tests share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.residual.uma import Uma
from palimpsest.audit.plan import Plan
from palimpsest.data.digits import Digits
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.pipeline import Say, audit, silent
from palimpsest.record import Record
from palimpsest.store import Store
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.retrain import Retrain
from palimpsest.verify.accuracy import Accuracy
from palimpsest.verify.relearn_time import RelearnTime
from palimpsest.verify.retrain_gap import RetrainGap
from palimpsest.verify.robust_unlearning import RobustUnlearning
from palimpsest.workers import Workers


def plan(**changes: Any) -> Plan:
    """Digits, a narrow ConvNet, two methods, every verifier, two attacks of two steps: about two seconds."""
    base = Plan(
        data=Digits(limit=300),
        model=ConvNet(width=2),
        forget=("class=0",),
        unlearners=(Retrain(), Finetune(epochs=1, lr=0.05, batch_size=64)),
        attacks=(Uma(epsilon=(8 / 255, 16 / 255), steps=2, layout="contiguous"), ConfidenceMembership()),
        verifiers=(Accuracy(), RetrainGap(), RobustUnlearning(), RelearnTime(steps=8, every=4)),
        recipe=Recipe(epochs=3, batch_size=64),
        seeds=(0,),
        threads=1,
    )
    return replace(base, **changes)


def run(
    folder: Path,
    *,
    out: str = "out",
    say: Say = silent,
    reported: bool = True,
    workers: Workers = Workers(),  # noqa: B008 - frozen
    **changes: Any,
) -> Record:
    """reported: whether the report is written too, which takes longer than many a small audit."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        if not reported:
            patch.setattr("palimpsest.pipeline.report.write", lambda out: None)
        return audit(plan(**changes), Store(folder / "store"), folder / out, say=say, workers=workers)


def numbers(record: Record) -> list[Any]:
    """All that must be the same on every run: cells without their seconds, verdicts, comparisons."""
    cells = [cell.model_dump(exclude={"seconds", "cost"}) for cell in record.cells]
    return [cells, [row.model_dump() for row in record.verdicts], [row.model_dump() for row in record.comparisons]]
