"""A section per attack: curves against ε, ROC curves, and the tables behind them."""

from __future__ import annotations

import re

from palimpsest.measures.auc import roc
from palimpsest.record import SHARED
from palimpsest.report.blocks import Block, Figure, Gallery, Paragraph, Section
from palimpsest.report.figures import Line, Rates, against_epsilon, mean_roc, roc_curves
from palimpsest.report.numbers import Numbers
from palimpsest.report.tables import by_epsilon, plain, residual
from palimpsest.report.wording import CONTROLS, interval, title

CURVES = ("unlearned", "retrained", "untrained", "bias-matched", "placebo")
SHARES = (".forget_accuracy", ".forget_resemblance")
"""Measures that are drawn against ε."""
CURVE_TEXT = (
    "Share of the forgotten records that the model names under attack, against the budget ε. Bands are 95% intervals. "
)
DRAWN_TEXT = (
    "How near what the model draws of forgotten records under attack comes to what the original drew (0: no nearer than one "
    "colour, 1: the same), against the budget ε, of which 255 is no bound at all. Bands are 95% intervals. "
)
ROC_TEXT = (
    "How well the forgotten records are told from records never trained on, of the same classes, by the model's confidence. "
    "On the diagonal nothing is told. Curves are means over seeds; each legend gives the AUC with its 95% interval."
)


def section(numbers: Numbers, attack: str) -> Section:
    """All that one attack found."""
    image = numbers.record.data.get("kind") == "image"
    blocks: list[Block] = []
    for request in numbers.requests:
        if len(numbers.requests) > 1:
            blocks.append(Paragraph(f"After request {request + 1}:"))
        curves, rates = _curves(numbers, attack, request, image), _rocs(numbers, attack, request)
        if curves:
            named = {target for label in numbers.methods(request) for target in _shown(numbers, attack, label, request)}
            words = " ".join(f"{target.capitalize()}: {CONTROLS[target]}." for target in CURVES if target in named)
            drawn = any(key[0].endswith(SHARES[1]) for key in numbers.keys(attack))
            blocks.append(Gallery(tuple(curves), (DRAWN_TEXT if drawn else CURVE_TEXT) + words))
        if rates:
            blocks.append(Gallery(tuple(rates), ROC_TEXT))
        keys = numbers.keys(attack)
        for name in dict.fromkeys(key[0] for key in keys if "epsilon" in dict(key[1])):
            blocks.append(by_epsilon(numbers, attack, request, name, image))
        left = residual(numbers, attack, request, image)
        if left:
            blocks.append(left)
        rest = [key for key in keys if "epsilon" not in dict(key[1])]
        if rest:
            blocks.append(
                plain(
                    numbers,
                    attack,
                    request,
                    rest,
                    f"{attack}: measures without a budget" if len(rest) < len(keys) else attack,
                )
            )
        if not keys:
            blocks.append(Paragraph("This attack gave no numbers; why is told under “Failed and skipped”."))
    return Section(f"attack-{slug(attack)}", f"Attack: {attack}", tuple(blocks))


def _curves(numbers: Numbers, attack: str, request: int, image: bool) -> list[Figure]:
    name = next((key[0] for key in numbers.keys(attack) if key[0].endswith(SHARES) and key[1]), "")
    figures = []
    for label in numbers.methods(request):
        lines = [
            Line(target, tuple(points))
            for target in CURVES
            if (points := numbers.curve(attack, name, target, numbers.owner(target, label), request))
        ]
        if not any(line.target == "unlearned" for line in lines):
            continue
        alt = f"{label}, {title(name)} from smallest to largest ε. " + ". ".join(
            f"{line.target}: {', '.join(f'{m.value:.0%}' for _, m in line.points)}" for line in lines
        )
        png = against_epsilon(lines, image=image, label=title(name))
        figures.append(Figure(_file(attack, "curve", label, request), _named(numbers, label, request), png, alt))
    return figures


def _rocs(numbers: Numbers, attack: str, request: int) -> list[Figure]:
    """ROC curves of forgotten against held-out records, where the scores have a confidence and these two groups."""
    figures = []
    for label in numbers.methods(request):
        own = _rates(numbers, attack, "unlearned", label, request)
        if own is None:
            continue
        shared = (_rates(numbers, attack, target, numbers.owner(target, label), request) for target in SHARED)
        lines = [own, *(line for line in shared if line)]
        alt = f"{label}, ROC of membership. " + ". ".join(line.words for line in lines)
        figures.append(
            Figure(_file(attack, "roc", label, request), _named(numbers, label, request), roc_curves(lines), alt)
        )
    return figures


def _rates(numbers: Numbers, attack: str, target: str, label: str, request: int) -> Rates | None:
    found = []
    for _, scores in numbers.scores(attack, target, label, request):
        if not {"group", "confidence"} <= scores.arrays.keys():
            return None
        group, values = scores["group"], scores["confidence"]
        if (group == 0).any() and (group == 1).any():
            found.append(roc(values[group == 0], values[group == 1]))
    key = next((key for key in numbers.keys(attack) if key[0].endswith(".auc")), None)
    mean = numbers.mean(attack, key, target, label, request) if key else None
    if not found or not mean:
        return None
    m = mean.measure
    return Rates(target, *mean_roc(found), f"{target}, AUC {m.value:.3f} {interval(m.name, m.low, m.high)}")


def _shown(numbers: Numbers, attack: str, label: str, request: int) -> set[str]:
    return {target for target in CURVES if numbers.cells(attack, target, numbers.owner(target, label), request)}


def _named(numbers: Numbers, label: str, request: int) -> str:
    verdict = numbers.verdict(label, request)
    return f"{label}: {verdict.verdict}" if verdict else label


def _file(attack: str, what: str, label: str, request: int) -> str:
    return f"{slug(attack)}-{what}-{slug(label)}-{request}.png"


def slug(text: str) -> str:
    """A file name's or an anchor's part; different texts stay different."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", text)
    return plain if plain == text else f"{plain}-{sum(ord(c) * 31**i for i, c in enumerate(text)) % 16**6:06x}"
