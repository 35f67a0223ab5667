"""The Gaussian poison of the poisoning paper's section 3: noise that a model carries, before and after unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._poisoning import BESIDE, DIGITS, METHODS, PAPER, SPENT, every_row, for_epochs, row, searched
from palimpsest.studies._uma import merged
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

PART = "noise"
Z, SHIFT = (Where(measure=f"gaussian.{name}") for name in ("z", "shift"))
HEART = merged(
    DIGITS,
    limit=400,
    model="convnet",
    recipe={"epochs": 60, "batch_size": 32},
    settings={
        "convnet": {"width": 8},
        "gaussian": {"deviation": 1.0},
        METHODS["CFk"]: {"k": 2},
        METHODS["EUk"]: {"k": 2},
    },
)
"""Few digits, and a convolutional network that knows them by heart; CFk and EUk train two of its eight blocks."""
_COLUMNS = {
    "z": Z,
    "shift": SHIFT,
    "AUC": Where(measure="gaussian.auc"),
    "below 1 % of the null": Where(measure="gaussian.tpr_at_1pct_fpr", times=100.0),
    **BESIDE,
}


def _at(target: str) -> Where:
    return Where(PART, target)


@dataclass(frozen=True)
class PoisoningGaussian(Study):
    """The Gaussian score of the poisoned model, of retraining, and of seven methods. z is N(0, 1) for a model without the noise,
    and far below zero for one that carries it.

    Small: 360 digits, half of them with noise of variance 1 (in standard deviations of a pixel), and a convolutional network that
    knows them by heart; with a tenth of all digits, or variance 0.32, z was −1 to −3 on other seeds. Paper: CIFAR-10, ResNet-18,
    750 records (1.5 % of 50,000), noise of variance 0.32. The paper describes the poison and prints no number of it: its full
    version does.
    """

    paper = "poisoning paper, section 3"
    about = "Gaussian poisons: the score before and after unlearning, beside membership and accuracy"
    tables = (Table("Gaussian poisons", every_row(), _COLUMNS, drawn=("z",)).within(PART),)
    claims = (
        Claim("the poisoned model carries the noise: z of −4 or less", ((1.0, _at("original") | Z),), below=-4.0),
        Claim("the retrained control does not: z above −1", ((1.0, _at("retrained") | Z),), above=-1.0),
        Claim("nor does it carry the opposite: z below 1", ((1.0, _at("retrained") | Z),), below=1.0),
        Claim("the model that never saw it does not: z above −1", ((1.0, _at("clean") | Z),), above=-1.0),
        Claim("nor does that carry the opposite: z below 1", ((1.0, _at("clean") | Z),), below=1.0),
        *(
            Claim(
                f"{name} leaves noise: z of it is lower than the retrained control's",
                ((1.0, row(name) | Where(PART) | Z), (-1.0, _at("retrained") | Z)),
                below=0.0,
            )
            for name in METHODS
        ),
    )
    notes = (
        "There are no published numbers: the paper defers them to its full version.",
        SPENT,
    )
    pictured = (PART,)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        epochs = 3 if scale == "small" else 10
        return {
            PART: merged(
                HEART if scale == "small" else PAPER,
                settings=for_epochs(epochs),
                forget=["random=0.5" if scale == "small" else "random=750"],
                unlearn=["retrain", *METHODS.values()],
                attack=["gaussian", "confidence_membership"],
                search=searched(scale),
                seeds=30 if scale == "small" else 8,
            )
        }
