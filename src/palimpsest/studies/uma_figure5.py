"""Figure 5 of the UMA paper: how much is recovered against the size of the attack's steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._uma import EPSILONS, SMALL, forget_accuracy, merged, paper
from palimpsest.studies.base import Claim, Curve, Scale, Study, Table, Where

SIZES = (0.1, 0.3, 0.5, 0.7, 1.0, 2.0, 4.0)
"""Of 255."""
_SALUN = Where(target="unlearned", method="salun")
_LINES = {
    "SalUn": _SALUN,
    "retrain": Where(target="retrained"),
    "SalUn: bias-matched": Where(target="bias-matched", method="salun"),
}


def _at(size: float) -> str:
    return f"{size:g} of 255"


@dataclass(frozen=True)
class UmaFigure5(Study):
    """SalUn, class-wise on CIFAR-10, attacked at 16/255 with 100 steps. The figure's points are not printed as numbers."""

    paper = "UMA paper, Figure 5"
    about = "ablation of UMA: forget accuracy against the step size"
    tables = (
        Table(
            "Figure 5: UA at 16/255 against the step size",
            {_at(size): Where(_at(size)) for size in SIZES},
            {name: forget_accuracy(16, where) | Where(times=100.0) for name, where in _LINES.items()},
        ),
    )
    curves = (
        Curve(
            "Figure 5",
            "size of the 100 steps, of 255",
            "forget accuracy at 16/255",
            {
                name: [(size, forget_accuracy(16, where | Where(_at(size)))) for size in SIZES]
                for name, where in _LINES.items()
            },
        ),
    )
    claims = tuple(
        Claim(
            f"steps of 1/255 recover more than steps of {other:g}/255",
            (
                (1.0, forget_accuracy(16, _SALUN | Where(_at(1.0)))),
                (-1.0, forget_accuracy(16, _SALUN | Where(_at(other)))),
            ),
            above=0.0,
        )
        for other in (0.1, 4.0)
    )
    notes = (
        "The step sizes are ours: the paper prints its curve as a picture only, and says that it is best around 0.7/255 to 1/255.",
        "Our attack keeps the best iterate of each record, so that steps that are too large cost less than in the paper's.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        base = SMALL if scale == "small" else paper("CIFAR-10")
        return {
            _at(size): merged(
                base,
                forget=["class=0"],
                unlearn=["salun"],
                settings={"uma": {"epsilon": EPSILONS[1:], "step_size": size / 255}},
            )
            for size in SIZES
        }
