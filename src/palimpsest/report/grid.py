"""The image grid: original, perturbation enlarged, attacked, with what the model says before and after; or what models drew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palimpsest.report.attacks import slug
from palimpsest.report.blocks import Block, Figure, Grid, Paragraph, Picture, Section
from palimpsest.report.figures import picture, sheet
from palimpsest.report.numbers import Numbers
from palimpsest.report.panels import HandedIn, Panel, Recovery, Shown, Strip, load
from palimpsest.report.wording import epsilon, subject
from palimpsest.types import Array

COLUMNS, MOST = 6, 10
"""Records shown of each model; recovered ones."""


ATTACKED, DRAWN, RECOVERED, POISONED = (f"{word} images" for word in ("Attacked", "Drawn", "Recovered", "Poisoned"))
TOLD = {
    ATTACKED: "What the attack does to forgotten records. Below an original and an attacked image: the class that the model under "
    "attack answers with, and the true class where that is another. The perturbation is shown enlarged, around grey.",
    DRAWN: "What the models draw of records of which they see a part. I₃ is drawn from an input that the attack made; its visible "
    "pixels are shown as they are in the record, whatever the attack made of them. Read a method beside the retrained model, which "
    "never saw the forgotten records, and the untrained one.",
    RECOVERED: "Deleted records, and what was recovered of them from two models by an attacker who never saw them. Below each: the "
    "record's rank among unseen records of its class by its distance to what was recovered (1: nearest of all, 0.5: by chance).",
    POISONED: "Records of the adversary as they were, and as it handed them in for training. The difference is shown enlarged, "
    "around grey; below the last row: the class that they were handed in under, and the true one where that is another.",
}


def section(numbers: Numbers) -> Section | None:
    """None where the record is redacted or there are no images."""
    found = {} if numbers.record.redacted else grids(load(numbers.folder))
    blocks: list[Block] = []
    for kind, grid in found.items():
        blocks += [Paragraph(TOLD[kind]), *grid]
    return Section("images", next(iter(found)), tuple(blocks)) if blocks else None


def sheets(folder: Path, stem: str) -> dict[str, list[Figure]]:
    """The images of an audit in a folder by their kind, a drawing per model; the files' names begin with `stem`. What stands below
    images is in a drawing's words, in their order."""
    made: dict[str, list[Figure]] = {}
    for kind, found in grids(load(folder)).items():
        for place, grid in enumerate(found):
            below = {name: [image.below for image in row] for name, row in grid.rows}
            words = "; ".join(f"{name}: {', '.join(told)}" for name, told in below.items() if any(told))
            png = sheet([(name, [image.png for image in row]) for name, row in grid.rows])
            made.setdefault(kind, []).append(
                Figure(f"{stem}-{kind.split()[0].lower()}-{place}.png", grid.title, png, words)
            )
    return made


def grids(found: Sequence[Shown]) -> dict[str, list[Grid]]:
    """Images by their kind, a grid per model."""
    several = any(one.request > 0 for one in found)
    panels = [one for one in _shown(found, Panel) if isinstance(one, Panel)]
    factor = _factor(panels)
    strips, recoveries = _shown(found, Strip), _shown(found, Recovery)
    made = {
        ATTACKED: [_grid(one, factor, place, several) for place, one in enumerate(panels)],
        DRAWN: [_drawn(one, place, several) for place, one in enumerate(strips) if isinstance(one, Strip)],
        RECOVERED: [_recovered(one, n, several) for n, one in enumerate(recoveries) if isinstance(one, Recovery)],
        POISONED: [_handed_in(one) for one in found if isinstance(one, HandedIn)],
    }
    return {kind: grid for kind, grid in made.items() if grid}


def _shown(panels: Sequence[Shown], kind: type) -> list[Shown]:
    """One panel per method, and one model of each sort of control to compare them with."""
    mine = [panel for panel in panels if isinstance(panel, kind) and len(panel)]
    methods = [panel for panel in mine if panel.target == "unlearned"]
    firsts = [
        [panel for panel in mine if panel.target == name][:1] for name in ("retrained", "untrained", "known-leak")
    ]
    return [*(panel for first in firsts for panel in first), *methods] if methods else []


def _recovered(found: Recovery, place: int, several: bool) -> Grid:
    who, names = subject(found.target, found.unlearner), [found.classes[int(label)] for label in found.label]
    rows = []
    for turn, title in enumerate(("deleted", "recovered")):
        words = names if turn == 0 else [f"rank {rank:.2f}" for rank in found.rank]
        pictures = [
            Picture(
                f"{title}-{place}-{slug(who)}-{i}.png",
                picture(found.images[i, turn]),
                f"{title}, record {i + 1}, {names[i]}",
                words[i],
            )
            for i in range(min(len(found), MOST))
        ]
        rows.append((title, tuple(pictures)))
    after = f", request {found.request + 1}" if several else ""
    return Grid(f"{found.attack}, {who}, seed {found.seed}{after}", tuple(rows))


def _handed_in(found: HandedIn) -> Grid:
    change = found.images[:, 1] - found.images[:, 0]
    largest = float(np.abs(change).max())
    factor = max(1, int(0.5 / largest)) if largest > 0 else 1
    names = [found.classes[int(label)] for label in found.label]
    told = [
        f"as {found.classes[int(new)]}" + ("" if new == old else f", is {found.classes[int(old)]}")
        for new, old in zip(found.given, found.label, strict=True)
    ]
    rows = []
    for title, images, words in (
        ("record", found.images[:, 0], names),
        (f"change ×{factor}", np.clip(0.5 + factor * change, 0, 1), [""] * len(found)),
        ("handed in", found.images[:, 1], told),
    ):
        stem = f"poison-{slug(found.by)}-{slug(title.split()[0])}"
        pictures = [
            Picture(f"{stem}-{i}.png", picture(images[i]), f"{title}, record {i + 1}, {names[i]}", words[i])
            for i in range(min(len(found), MOST))
        ]
        rows.append((title, tuple(pictures)))
    return Grid(f"{found.by}, seed {found.seed}", tuple(rows))


def _drawn(strip: Strip, place: int, several: bool) -> Grid:
    who, forgotten = subject(strip.target, strip.unlearner), len(strip) - strip.retained
    names = [
        f"{strip.classes[int(label)]}, {'forgotten' if i < forgotten else 'retained'}"
        for i, label in enumerate(strip.label)
    ]
    titles = ["truth, I₀", "seen, Iₘ", "original, I₁", f"{who}, I₂"]
    titles += [f"attacked, {'unbounded' if radius >= 1 else epsilon(radius, True)}, I₃" for radius in strip.epsilon]
    rows = []
    for turn, title in enumerate(titles):
        pictures = [
            Picture(
                f"drawn-{place}-{slug(who)}-{turn}-{i}.png",
                picture(strip.images[i, turn]),
                f"{title}, of record {i + 1}",
                names[i] if turn == 0 else "",
            )
            for i in range(min(len(strip), COLUMNS))
        ]
        rows.append((title, tuple(pictures)))
    after = f", request {strip.request + 1}" if several else ""
    return Grid(f"{who}, seed {strip.seed}{after}", tuple(rows))


def _factor(panels: list[Panel]) -> int:
    """By how much perturbations can be multiplied without leaving [0, 1] when drawn around 0.5."""
    largest = max((float(np.abs(panel.attacked - panel.original).max()) for panel in panels), default=0.0)
    return max(1, int(0.5 / largest)) if largest > 0 else 1


def _grid(panel: Panel, factor: int, place: int, several: bool) -> Grid:
    who = subject(panel.target, panel.unlearner)
    shown = range(min(len(panel), COLUMNS))
    deltas = np.clip(0.5 + factor * (panel.attacked - panel.original), 0, 1)

    def row(kind: str, images: Array, words: list[str]) -> tuple[Picture, ...]:
        stem = f"record-{place}-{slug(who)}-{kind}"
        return tuple(
            Picture(f"{stem}-{i}.png", picture(images[i]), f"{kind} of record {i + 1}", words[i]) for i in shown
        )

    def says(answers: Array) -> list[str]:
        return [
            f"says {panel.classes[int(answer)]}" + ("" if answer == label else f", is {panel.classes[int(label)]}")
            for answer, label in zip(answers, panel.label, strict=True)
        ]

    rows = (
        ("original", row("original", panel.original, says(panel.before))),
        (f"perturbation ×{factor}", row("perturbation", deltas, [""] * len(panel))),
        ("attacked", row("attacked", panel.attacked, says(panel.after))),
    )
    after = f", request {panel.request + 1}" if several else ""
    title = f"{who}, ε = {epsilon(panel.epsilon, True)}, seed {panel.seed}{after}"
    return Grid(title, rows)
