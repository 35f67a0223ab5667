"""Figure 4 of the UMA paper: how much is recovered against the number of attack steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._uma import EPSILONS, SMALL, forget_accuracy, merged, paper
from palimpsest.studies.base import Claim, Curve, Scale, Study, Table, Where

STEPS = (5, 10, 20, 50, 100, 200)
_SALUN = Where(target="unlearned", method="salun")
_LINES = {
    "SalUn": _SALUN,
    "retrain": Where(target="retrained"),
    "SalUn: bias-matched": Where(target="bias-matched", method="salun"),
}


def _at(steps: int) -> str:
    return f"{steps} steps"


@dataclass(frozen=True)
class UmaFigure4(Study):
    """SalUn, class-wise on CIFAR-10, attacked at 16/255 with steps of 1/255. The figure's points are not printed as numbers."""

    paper = "UMA paper, Figure 4"
    about = "ablation of UMA: forget accuracy against the number of steps"
    tables = (
        Table(
            "Figure 4: UA at 16/255 against the number of steps",
            {_at(steps): Where(_at(steps)) for steps in STEPS},
            {name: forget_accuracy(16, where) | Where(times=100.0) for name, where in _LINES.items()},
        ),
    )
    curves = (
        Curve(
            "Figure 4",
            "attack steps of 1/255",
            "forget accuracy at 16/255",
            {
                name: [(float(steps), forget_accuracy(16, where | Where(_at(steps)))) for steps in STEPS]
                for name, where in _LINES.items()
            },
        ),
    )
    claims = (
        Claim(
            "100 steps recover more than 10",
            (
                (1.0, forget_accuracy(16, _SALUN | Where(_at(100)))),
                (-1.0, forget_accuracy(16, _SALUN | Where(_at(10)))),
            ),
            above=0.0,
        ),
        Claim(
            "200 steps recover no less than 100, up to 2 points",
            (
                (1.0, forget_accuracy(16, _SALUN | Where(_at(200)))),
                (-1.0, forget_accuracy(16, _SALUN | Where(_at(100)))),
            ),
            above=-0.02,
        ),
    )
    notes = ("The numbers of steps are ours: the paper prints its curve as a picture only.",)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        base = SMALL if scale == "small" else paper("CIFAR-10")
        return {
            _at(steps): merged(
                base,
                forget=["class=0"],
                unlearn=["salun"],
                settings={"uma": {"epsilon": EPSILONS[1:], "steps": steps}},
            )
            for steps in STEPS
        }
