"""Figure 2a of the poisoning paper: targeted poisons of images, before and after unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._poisoning import (
    BESIDE,
    DIGITS,
    METHODS,
    PAPER,
    SPENT,
    TA,
    every_row,
    for_epochs,
    left,
    row,
    searched,
)
from palimpsest.studies._uma import merged
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

PART = "gradient matching"
_NAME = "gradient_matching"
SUCCESS = Where(measure=f"{_NAME}.success_rate")
BREWED: dict[Scale, dict[str, Any]] = {
    "small": {
        "epsilon": 96 / 255,
        "ensemble": 6,
        "stages": (0.08, 0.16, 0.32, 0.6),
        "restarts": 2,
        "iterations": 150,
    },
    "paper": {"ensemble": 1, "augment": "flip_shift"},
}
"""How the records are made."""
_COLUMNS = {
    "success": SUCCESS | Where(times=100.0),
    "taken for its own class": Where(measure=f"{_NAME}.true_rate", times=100.0),
    "confidence": Where(measure=f"{_NAME}.confidence"),
    **BESIDE,
    "margin of the adversary's models": Where(measure=f"{_NAME}.surrogate_margin"),
    "least of these": Where(measure=f"{_NAME}.least_margin"),
    "greatest change, of 255": Where(measure=f"{_NAME}.change", times=255.0),
}


def _at(target: str) -> Where:
    return Where(PART, target)


@dataclass(frozen=True)
class PoisoningFigure2a(Study):
    """Witches' Brew against one unseen record a seed, drawn at random among those that three models of the adversary's, trained to
    the end, read rightly.

    Small: digits; the adversary owns nine tenths of a class (9 % of the records), and may change each pixel by 96 of 255, as 48 of
    255 did nothing there: 64 pixels and a small model leave less room than CIFAR-10's 3,072. Paper: CIFAR-10, ResNet-18, 1.5 % of
    the records that are trained on (15 % of a class), 16/255. The figure's bars are not printed as numbers.
    """

    paper = "poisoning paper, Figure 2a"
    about = "targeted poisons: success before and after unlearning, and what else was measured"
    tables = (Table("Figure 2a", every_row(), _COLUMNS, drawn=("success",)).within(PART),)
    claims = (
        Claim("the poison works: 60 % or more before unlearning", ((1.0, _at("original") | SUCCESS),), above=0.6),
        Claim("retraining removes it: 20 % or less", ((1.0, _at("retrained") | SUCCESS),), below=0.2),
        Claim(
            "retraining removes it: success is lower than before",
            ((1.0, _at("original") | SUCCESS), (-1.0, _at("retrained") | SUCCESS)),
            above=0.0,
        ),
        *(left(PART, name, SUCCESS) for name in METHODS),
        Claim(
            "GA is somewhat effective: success is lower than before",
            ((1.0, _at("original") | SUCCESS), (-1.0, row("GA") | Where(PART) | SUCCESS)),
            above=0.0,
        ),
        Claim(
            "NGP does not come close: half or more of the success is left",
            ((1.0, row("NGP") | Where(PART) | SUCCESS), (-0.5, _at("original") | SUCCESS)),
            above=0.0,
        ),
        *(
            Claim(
                f"{name} keeps test accuracy within 3 points",
                ((1.0, row(name) | Where(PART, measure=TA)), (-1.0, _at("original") | Where(measure=TA))),
                above=-0.03,
            )
            for name in ("GD", "CFk", "EUk")
        ),
        Claim(
            "GA costs more than 10 points of test accuracy",
            ((1.0, row("GA") | Where(PART, measure=TA)), (-1.0, _at("original") | Where(measure=TA))),
            below=-0.1,
        ),
    )
    pictured = (PART,)
    notes = (
        "The paper prints Figure 2a as a picture only: there are no published numbers beside the measured ones.",
        "A seed has one target, so that a success is 0 or 1, and intervals are those of a share of targets.",
        "Targets are read rightly by the adversary's models; the clean model is another, and its errors stand in its own row.",
        SPENT,
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        epochs = 3 if scale == "small" else 10
        return {
            PART: merged(
                DIGITS if scale == "small" else PAPER,
                settings={**for_epochs(epochs), _NAME: BREWED[scale]},
                forget=["class=3:0.9" if scale == "small" else "class=3:0.15"],
                unlearn=["retrain", *METHODS.values()],
                attack=[_NAME, "confidence_membership"],
                search=searched(scale),
                seeds=30 if scale == "small" else 8,
            )
        }
