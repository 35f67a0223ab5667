"""Figure 5 of the UMA paper: how much is recovered against the size of the attack's steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._ablation import audit, curves, recovers_more, tables
from palimpsest.studies.base import Scale, Study

SIZES = {f"{size:g} of 255": size for size in (0.1, 0.3, 0.5, 0.7, 1.0, 2.0, 4.0)}


@dataclass(frozen=True)
class UmaFigure5(Study):
    """SalUn, class-wise on CIFAR-10, attacked at 16/255 with 100 steps. The figure's points are not printed as numbers."""

    revision = 2
    paper = "UMA paper, Figure 5"
    about = "ablation of UMA: forget accuracy against the step size"
    tables = tables("Figure 5: UA against the step size", list(SIZES))
    curves = curves("Figure 5", "size of the 100 steps, of 255", SIZES)
    claims = tuple(
        claim
        for other in ("0.1", "4")
        for claim in recovers_more(
            f"steps of 1/255 recover more than steps of {other}/255", "1 of 255", f"{other} of 255"
        )
    )
    notes = (
        "The radius of 2/255 is ours: at the paper's, 16/255, the small scale's model gives everything back.",
        "The step sizes are ours: the paper prints its curve as a picture only, and says that it is best around 0.7/255 to 1/255.",
        "Our attack keeps the best iterate of each record, so that steps that are too large cost less than in the paper's.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {part: audit(scale, step_size=size / 255) for part, size in SIZES.items()}
