"""Figure 4 of the UMA paper: how much is recovered against the number of attack steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._ablation import audit, curves, recovers_more, tables
from palimpsest.studies.base import Scale, Study

STEPS = {f"{steps} steps": steps for steps in (5, 10, 20, 50, 100, 200)}


@dataclass(frozen=True)
class UmaFigure4(Study):
    """SalUn, class-wise on CIFAR-10, attacked at 16/255 with steps of 1/255. The figure's points are not printed as numbers."""

    revision = 2
    paper = "UMA paper, Figure 4"
    about = "ablation of UMA: forget accuracy against the number of steps"
    tables = tables("Figure 4: UA against the number of steps", list(STEPS))
    curves = curves("Figure 4", "attack steps of 1/255", {part: float(steps) for part, steps in STEPS.items()})
    claims = (
        *recovers_more("100 steps recover more than 10", "100 steps", "10 steps"),
        *recovers_more("200 steps recover no less than 100, up to 2 points", "200 steps", "100 steps", by=-0.02),
    )
    notes = (
        "The numbers of steps are ours: the paper prints its curve as a picture only.",
        "The radius of 2/255 is ours: at the paper's, 16/255, the small scale's model gives everything back after ten steps.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {part: audit(scale, steps=steps) for part, steps in STEPS.items()}
