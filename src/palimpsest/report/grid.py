"""The image grid: original, perturbation enlarged, attacked, with what the model says before and after."""

from __future__ import annotations

import numpy as np

from palimpsest.report.attacks import slug
from palimpsest.report.blocks import Block, Grid, Paragraph, Picture, Section
from palimpsest.report.figures import picture
from palimpsest.report.numbers import Numbers
from palimpsest.report.panels import Panel, load
from palimpsest.report.wording import epsilon, subject
from palimpsest.types import Array

COLUMNS = 6


def section(numbers: Numbers) -> Section | None:
    """None where the record is redacted or there are no images."""
    panels = [] if numbers.record.redacted else _shown(load(numbers.folder))
    if not panels:
        return None
    factor = _factor(panels)
    text = (
        "What the attack does to forgotten records. Below an original and an attacked image: the class that the model under attack "
        f"answers with, and the true class where that is another. The perturbation is shown {factor} times as strong, around grey."
    )
    blocks: list[Block] = [Paragraph(text)]
    blocks += [_grid(panel, factor, place, len(numbers.requests) > 1) for place, panel in enumerate(panels)]
    return Section("images", "Attacked images", tuple(blocks))


def _shown(panels: list[Panel]) -> list[Panel]:
    """One panel per method, and one retrained model to compare them with."""
    methods = [panel for panel in panels if panel.target == "unlearned" and len(panel)]
    retrained = [panel for panel in panels if panel.target == "retrained" and len(panel)]
    return [*retrained[:1], *methods] if methods else []


def _factor(panels: list[Panel]) -> int:
    """By how much perturbations can be multiplied without leaving [0, 1] when drawn around 0.5."""
    largest = max(float(np.abs(panel.attacked - panel.original).max()) for panel in panels)
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
