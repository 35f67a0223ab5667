"""Beyond the inversion paper: recovered images against how sure the victim is, and how many private images it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import COLUMNS, METHODS, OVER_COLOUR, RANK, TWO_DISTANCES, VICTIM, at, features
from palimpsest.studies.base import Claim, Curve, Scale, Study, Table, Where

EPOCHS = (1, 5, 15, 45)
SIZES = (16, 64, 512, 1536)
USUAL = 15, 512
"""Epochs on public images, and private images, of the other studies at small scale."""
TARGETS = {"deleted": "unlearned", "placebo": "placebo"}


def part(epochs: int, size: int) -> str:
    return f"{epochs} epochs, {size} private images"


SURE = {float(epochs): part(epochs, USUAL[1]) for epochs in EPOCHS}
MANY = {float(size): part(USUAL[0], size) for size in SIZES}


def _row(name: str, target: str = "unlearned") -> Where:
    return Where(name, target, METHODS["approximate"])


def _curve(title: str, across: str, places: Mapping[float, str]) -> Curve:
    """Rank of the deleted image and of the placebo, and what the deleted one's has beyond its mean colour's."""
    lines = {
        word: [(setting, _row(name, target) | RANK) for setting, name in places.items()]
        for word, target in TARGETS.items()
    }
    return Curve(title, across, "rank of the deleted image", lines)


@dataclass(frozen=True)
class InversionConfidence(Study):
    """One image deleted at a time by a single gradient, from models that public images taught for longer and longer, and that were
    fine-tuned on more and more private ones. Not in the paper.

    A record that the model is sure of has a small gradient, of which a stored float32 keeps few digits.
    """

    paper = "beyond the inversion paper: its attack, over the victim's confidence and the private images"
    about = "single deleted images, recovered against the victim's confidence and the number of private images"
    tables = (
        Table(
            "Single deleted images",
            {name: _row(name) for name in dict.fromkeys([*SURE.values(), *MANY.values()])},
            {
                "TA": Where(measure="test_accuracy", times=100.0),
                "confidence": at("victim_confidence"),
                **COLUMNS,
            },
        ),
    )
    curves = (
        _curve("Epochs on public images, which make the victim surer", "epochs on public images", SURE),
        _curve("Private images of the fine-tuning", "private images", MANY),
    )
    claims = (
        Claim(
            "the surest victim gives less away than the least sure one",
            ((1.0, _row(part(EPOCHS[-1], USUAL[1])) | RANK), (-1.0, _row(part(EPOCHS[0], USUAL[1])) | RANK)),
            below=0.0,
        ),
        Claim(
            "images are ranked higher than by mean colour even where the victim is surest",
            ((1.0, _row(part(EPOCHS[-1], USUAL[1])) | OVER_COLOUR),),
            above=0.0,
        ),
        Claim(
            "many private images hide a deleted one: ranked lower with 1,536 of them than with 16",
            ((1.0, _row(part(USUAL[0], SIZES[-1])) | RANK), (-1.0, _row(part(USUAL[0], SIZES[0])) | RANK)),
            below=0.0,
        ),
    )
    notes = (
        TWO_DISTANCES,
        "With fewer private images than a batch holds, single_gradient divides by as many as there are, as fine-tuning did.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        count, seeds = (8, 2) if scale == "small" else (100, 3)
        every = dict.fromkeys([*((epochs, USUAL[1]) for epochs in EPOCHS), *((USUAL[0], size) for size in SIZES)])
        return {
            part(epochs, size): features(
                scale,
                forget=[f"random={count}/1"],
                unlearn=[METHODS["approximate"]],
                seeds=seeds,
                settings={
                    "finetuned": {"pretraining_epochs": epochs},
                    "hub": {"private": size},
                    METHODS["approximate"]: {"batch_size": min(size, VICTIM["recipe"]["batch_size"])},
                },
            )
            for epochs, size in every
        }
