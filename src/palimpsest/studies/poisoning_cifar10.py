"""Beyond the poisoning paper's tables: its three poisons of images on CIFAR-10, at a size that a processor can train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._poisoning import BESIDE, METHODS, PAPER, TA, for_epochs, rows_of
from palimpsest.studies._uma import SMALL, merged
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

EPOCHS = 3
NAMES = ("GD", "SCRUB", "NGP")
POISONS: dict[str, tuple[str, str, dict[str, Where]]] = {
    "targeted": (
        "gradient_matching",
        "class=3:0.5",
        {
            "success": Where(measure="gradient_matching.success_rate", times=100.0),
            "confidence": Where(measure="gradient_matching.confidence"),
            "greatest change, of 255": Where(measure="gradient_matching.change", times=255.0),
        },
    ),
    "indiscriminate": (
        "gradient_canceling",
        "random=0.1",
        {
            "error": Where(measure="gradient_canceling.error_rate", times=100.0),
            "greatest change, of 255": Where(measure="gradient_canceling.change", times=255.0),
        },
    ),
    "noise": (
        "gaussian",
        "random=0.1",
        {"z": Where(measure="gaussian.z"), "shift": Where(measure="gaussian.shift")},
    ),
}
"""Name → attack, the adversary's records, and what of it is told."""


@dataclass(frozen=True)
class PoisoningCifar10(Study):
    """Each poison alone, on 10,000 images and a ResNet-18 of width 16 that reaches 66 %; three seeds, three epochs of unlearning.

    The adversary owns half of a class (5 % of the records) or a tenth of all, where the paper has 1.5 %: with as few of 9,000 as of
    50,000 there would be 135. ε 16/255 on stored bytes, as in the paper. Nothing was chosen by results on CIFAR-10, so this says
    what the settings of the papers do at this size, not what a poisoner could reach.
    """

    paper = "ours; on the poisons of the poisoning paper, section 3"
    about = "three poisons of CIFAR-10 images, before and after unlearning"
    tables = tuple(
        Table(f"CIFAR-10, {name}", rows_of(NAMES), {**told, **BESIDE}, drawn=tuple(told)[:1]).within(name)
        for name, (_, _, told) in POISONS.items()
    )
    claims = (
        Claim(
            "the clean model reads 60 % of the test records or more",
            ((1.0, Where("targeted", "clean", measure=TA)),),
            above=0.6,
        ),
        Claim(
            "noise: z of the poisoned model is lower than the retrained control's",
            (
                (1.0, Where("noise", "original", measure="gaussian.z")),
                (-1.0, Where("noise", "retrained", measure="gaussian.z")),
            ),
            below=0.0,
        ),
    )
    notes = ("Over three seeds few differences can be decided; the intervals say which.",)
    pictured = tuple(POISONS)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        craft = {
            "gradient_matching": {"epsilon": 16 / 255, "augment": "flip_shift", "restarts": 1, "iterations": 100},
            "gradient_canceling": {"epsilon": 16 / 255, "iterations": 200},
            "gaussian": {},
        }
        base = merged(SMALL, attack=[], verify=["accuracy"]) if scale == "small" else PAPER
        return {
            name: merged(
                base,
                forget=[forget],
                unlearn=["retrain", *(METHODS[method] for method in NAMES)],
                attack=[attack, "confidence_membership"],
                seeds=3,
                settings={**for_epochs(EPOCHS), attack: craft[attack]},
            )
            for name, (attack, forget, _) in POISONS.items()
        }
