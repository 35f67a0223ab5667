"""Table 3 of the UMA paper: how good images are that unlearned models of images draw, before and under attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from palimpsest.studies._generation import BOUNDED, CHANGED, EXTRACTOR, FROM_NOTHING, PART, UNBOUNDED, at, parts, rows
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

_RADII = {"": 0.0, " 8/255": BOUNDED, " unbound": UNBOUNDED}
_SETS = {"R": "retain", "F": "forget"}
_COLUMNS = {
    f"{score} {short}{told}": at(f"{group}_{score.lower()}_{EXTRACTOR}", radius)
    for score in ("IS", "FID")
    for told, radius in _RADII.items()
    for short, group in _SETS.items()
} | {
    f"FID F unbound, minus {name}": replace(at(f"forget_fid_{EXTRACTOR}", UNBOUNDED), minus=control)
    for name, control in {"retrain": "retrained", "untrained": "untrained"}.items()
}
_PRINTED = {
    "Original": (6.21, 6.39, None, None, None, None, 96.12, 103.38, None, None, None, None),
    "I2I": (6.18, 2.79, 6.21, 6.22, 6.20, 6.35, 100.15, 306.43, 94.76, 114.16, 96.98, 110.29),
    "SalUn": (6.05, 2.42, 6.02, 6.11, 6.13, 6.27, 130.45, 330.79, 102.75, 133.82, 94.15, 108.44),
}
_TABLES = tuple(Table(f"Table 3, {part}", rows(part), _COLUMNS, _PRINTED) for part in PART.values())


def _fid(where: Where, group: str, epsilon: float) -> Where:
    return where | at(f"{group}_fid_{EXTRACTOR}", epsilon)


def _claims(scale: str) -> tuple[Claim, ...]:
    """The same claims of either audit."""
    part = PART[scale]
    row, here = rows(part), "" if scale == "paper" else f" ({part})"
    found = []
    for name, fallen, back in (("I2I", 151.36, -40.91), ("SalUn", 175.72, -21.25)):
        found += [
            Claim(
                f"unlearning by {name} makes the forget set's FID at least 1.5 times the original's{here}",
                ((1.0, _fid(row[name], "forget", 0.0)), (-1.5, _fid(row["Original"], "forget", 0.0))),
                above=0.0,
                printed=fallen,
            ),
            Claim(
                f"attacked at 8/255, {name}'s forget set is back within 1.5 times the original's FID{here}",
                ((1.0, _fid(row[name], "forget", BOUNDED)), (-1.5, _fid(row["Original"], "forget", 0.0))),
                below=0.0,
                printed=back,
            ),
            Claim(
                f"{name}'s retain set is not hurt by the attack at 8/255: its FID rises by a tenth of the original's at most{here}",
                (
                    (1.0, _fid(row[name], "retain", BOUNDED)),
                    (-1.0, _fid(row[name], "retain", 0.0)),
                    (-0.1, _fid(row["Original"], "retain", 0.0)),
                ),
                below=0.0,
                printed={"I2I": -15.002, "SalUn": -37.312}[name],
            ),
            Claim(
                f"unbounded, an untrained model's FID stays above that of {name}: the attack alone does not paint it{here}",
                ((1.0, _fid(row["untrained"], "forget", UNBOUNDED)), (-1.0, _fid(row[name], "forget", UNBOUNDED))),
                above=0.0,
            ),
            Claim(
                f"unbounded, {name} draws the class better than a model that never saw it: its FID is lower{here}",
                ((1.0, _fid(row[name], "forget", UNBOUNDED)), (-1.0, _fid(row["retrain"], "forget", UNBOUNDED))),
                below=0.0,
            ),
        ]
    return tuple(found)


@dataclass(frozen=True)
class UmaTable3(Study):
    """Inception score and Fréchet distance of what is drawn, R: retained and F: forgotten records.

    Small: CIFAR-10, 10,000 images, a masked autoencoder of 0.4 million weights, class 0. Paper: ImageNet-1k at 224×224. Beside the
    paper's rows stand a retrained and an untrained model, which it does not have: a class that a model never saw can be drawn well,
    and an input that may be anything brings something forth from any model.
    """

    revision = 2
    paper = "UMA paper, Table 3"
    about = "image generation: IS and FID of what is drawn after I2I and SalUn, under UMA"
    tables = _TABLES
    claims = tuple(claim for scale in PART for claim in _claims(scale))
    notes = (
        FROM_NOTHING,
        "IS and FID take a ResNet-18 that was trained on the same data in the place of the Inception network, and few images: "
        "compare columns and rows with each other, not with the printed numbers. With Inception weights of your own, run "
        "`palimpsest audit` on the same case with `--set uma_generation.extractor=my_module:make`.",
        "The paper prints neither the number of images nor the classes, the model's size, the attack's steps or its step size.",
        "The paper prints no numbers for the attacked original, nor for a retrained or an untrained model.",
        CHANGED,
    )
    pictured = tuple(PART.values())

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return parts(scale)
