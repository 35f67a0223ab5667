"""Drawings as PNG: curves against ε or another setting, ROC curves, images of records. No text that comes from data is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from PIL import Image

from palimpsest.report.wording import epsilon
from palimpsest.types import Array, Measure

LOOKS: Mapping[str, tuple[str, Any, str]] = {
    "unlearned": ("#d55e00", "-", "o"),
    "retrained": ("#0072b2", "--", "s"),
    "bias-matched": ("#007a5a", "-.", "^"),
    "clean": ("#56606e", (0, (8, 2)), "X"),
    "untrained": ("#8a6d00", (0, (3, 1, 1, 1)), "P"),
    "placebo": ("#a8447e", (0, (1, 1)), "v"),
    "original": ("#555555", (0, (5, 2, 1, 2, 1, 2)), "D"),
}
"""Target → colour, line and marker: the Okabe–Ito palette, some of it darkened for text; the lines differ in grey print too."""

INK, GRID, SIZE, WIDTH, HEIGHT, DPI = "#333333", "#e3e3e3", 9, 3.5, 2.7, 200


@dataclass(frozen=True)
class Line:
    """A curve: per point its place on the x axis and its measure, whose interval is drawn as a band."""

    target: str
    points: tuple[tuple[float, Measure], ...]


@dataclass(frozen=True)
class Rates:
    """An ROC curve: false and true positive rates, and what its legend says."""

    target: str
    false: Array
    true: Array
    words: str


def against_epsilon(lines: Sequence[Line], *, image: bool, label: str = "forget accuracy") -> bytes:
    """Curves of shares against ε, each named at its end in its own colour."""
    canvas, axes, last = _curves(lines, first=0.0)
    ticks = sorted({point[0] for line in lines for point in line.points})
    names = [epsilon(tick, image).removesuffix("/255") for tick in ticks]
    for place, (near, next_one) in enumerate(pairwise(ticks)):
        if next_one - near < 0.06 * last:  # no room for both
            names[place] = ""
    axes.set_xticks(ticks, names)
    axes.set_ylim(-0.05, 1.05)
    _percent(axes.set_yticks)
    axes.set_xlabel("ε, of 255" if image else "ε", size=SIZE, color=INK, x=0.36)
    axes.set_ylabel(label, size=SIZE, color=INK)
    axes.spines["bottom"].set_bounds(0, last)
    return _png(canvas)


def against_requests(lines: Sequence[Line], *, label: str, share: bool) -> bytes:
    """Curves against the number of requests granted, of shares or of other numbers from 0 on."""
    top = 1.0 if share else max(point[1].value for line in lines for point in line.points) or 1.0
    canvas, axes, last = _curves(lines, first=1.0, top=top)
    axes.set_xticks([tick for tick in MaxNLocator(nbins=6, integer=True).tick_values(1, last) if 1 <= tick <= last])
    axes.set_ylim(-0.05 * top, 1.05 * top)
    if share:
        _percent(axes.set_yticks)
    axes.set_xlabel("requests", size=SIZE, color=INK, x=0.36)
    axes.set_ylabel(label, size=SIZE, color=INK)
    axes.spines["bottom"].set_bounds(1, last)
    return _png(canvas)


@dataclass(frozen=True)
class Course:
    """A named curve: per point its place on the x axis, value and interval."""

    name: str
    points: tuple[tuple[float, float, float, float], ...]


COLOURS = ("#d55e00", "#0072b2", "#007a5a", "#a8447e", "#555555", "#8a6d00")


@dataclass(frozen=True)
class Spot:
    """A named setting: value and ends of the interval in both directions; filled or hollow."""

    name: str
    words: str
    across: tuple[float, float, float]
    upwards: tuple[float, float, float]
    filled: bool


def against_setting(lines: Sequence[Course], *, across: str, upwards: str, share: bool = True) -> bytes:
    """Curves of shares, or of other numbers, against a setting above 0, on a logarithmic axis, with a legend below."""
    canvas, axes = _axes(height=3.4)
    for place, line in enumerate(lines):
        colour, look = COLOURS[place % len(COLOURS)], list(LOOKS.values())[place % len(LOOKS)]
        x, values, low, high = zip(*line.points, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(x, values, color=colour, ls=look[1], marker=look[2], ms=4, lw=1.6, label=line.name)
    axes.set_xscale("log")
    ticks = sorted({point[0] for line in lines for point in line.points})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    if share:
        axes.set_ylim(-0.05, 1.05)
        _percent(axes.set_yticks)
    return _finished(canvas, axes, across, upwards)


def scatter(spots: Sequence[Spot], *, across: str, upwards: str) -> bytes:
    """Settings as marks with bars, a colour and mark for each name, each with its words beside it."""
    canvas, axes = _axes(height=3.6)
    for place, name in enumerate(dict.fromkeys(spot.name for spot in spots)):
        colour, mark = COLOURS[place % len(COLOURS)], list(LOOKS.values())[place % len(LOOKS)][2]
        for index, spot in enumerate(spot for spot in spots if spot.name == name):
            (x, left, right), (y, low, high) = spot.across, spot.upwards
            wide, tall = [[x - left], [right - x]], [[y - low], [high - y]]
            axes.errorbar(x, y, xerr=wide, yerr=tall, color=colour, lw=0.8, alpha=0.5)
            face = colour if spot.filled else "white"
            label = name if not index else None
            axes.plot(x, y, mark, color=colour, markerfacecolor=face, ms=6, label=label, zorder=3)
            axes.annotate(spot.words, (x, y), (4, 4), textcoords="offset points", size=SIZE - 2, color=colour, zorder=4)
    return _finished(canvas, axes, across, upwards)


@dataclass(frozen=True)
class Mark:
    """A named number with the ends of its interval; published: another's number of the same."""

    name: str
    value: float
    low: float
    high: float
    published: float | None = None


def side_by_side(marks: Sequence[Mark], *, across: str) -> bytes:
    """Numbers as bars from 0 with their intervals, one below the other; published ones as hollow diamonds."""
    canvas, axes = _axes(height=0.7 + 0.27 * len(marks))
    heights = [-float(place) for place in range(len(marks))]
    values = [mark.value for mark in marks]
    reach = [[mark.value - mark.low for mark in marks], [mark.high - mark.value for mark in marks]]
    axes.barh(heights, values, height=0.6, color=COLOURS[1], alpha=0.55)
    axes.errorbar(values, heights, xerr=reach, fmt="none", ecolor=INK, lw=1.2, capsize=2)
    told = [(mark.published, height) for mark, height in zip(marks, heights, strict=True) if mark.published is not None]
    if told:
        x, y = zip(*told, strict=True)
        axes.plot(x, y, "D", color=COLOURS[0], markerfacecolor="white", ms=5, zorder=3, label="published")
        canvas.legend(fontsize=SIZE - 1, loc="outside lower center", frameon=False, labelcolor=INK)
    axes.set_yticks(heights, [mark.name for mark in marks])
    axes.grid(False, axis="y")
    axes.set_xlabel(across, size=SIZE, color=INK)
    return _png(canvas)


def _finished(canvas: Canvas, axes: Axes, across: str, upwards: str) -> bytes:
    """With names of both axes and a legend below."""
    axes.set_xlabel(across, size=SIZE, color=INK)
    axes.set_ylabel(upwards, size=SIZE, color=INK)
    canvas.legend(fontsize=SIZE - 1, loc="outside lower center", frameon=False, labelcolor=INK, handlelength=3, ncols=2)
    return _png(canvas)


def _curves(lines: Sequence[Line], first: float, top: float = 1.0) -> tuple[Canvas, Axes, float]:
    """Lines with their bands, each named at its end; room for the names on the right. Returns the last place on the x axis too."""
    canvas, axes = _axes()
    last = max(point[0] for line in lines for point in line.points)
    wide = last - first or 1.0
    ends = _apart([line.points[-1][1].value / top for line in lines])
    for line, end in zip(lines, ends, strict=True):
        colour, dashes, marker = LOOKS[line.target]
        x = [point[0] for point in line.points]
        measures = [point[1] for point in line.points]
        axes.fill_between(x, [m.low for m in measures], [m.high for m in measures], color=colour, alpha=0.15, lw=0)
        axes.plot(x, [m.value for m in measures], color=colour, ls=dashes, marker=marker, ms=4, lw=1.6)
        axes.text(last + 0.05 * wide, end * top, line.target, color=colour, va="center", size=SIZE)
    axes.set_xlim(first - 0.03 * wide, last + 0.42 * wide)
    return canvas, axes, last


def roc_curves(curves: Sequence[Rates]) -> bytes:
    """ROC curves with the chance diagonal; each legend line carries its AUC."""
    canvas, axes = _axes(height=3.9)
    axes.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":", label="chance, AUC 0.500")
    for curve in curves:
        colour, dashes, _ = LOOKS[curve.target]
        axes.plot(curve.false, curve.true, color=colour, ls=dashes, lw=1.6, label=curve.words)
    canvas.legend(fontsize=SIZE - 1, loc="outside lower center", frameon=False, labelcolor=INK, handlelength=3)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    _percent(axes.set_xticks)
    _percent(axes.set_yticks)
    axes.set_xlabel("false positive rate", size=SIZE, color=INK)
    axes.set_ylabel("true positive rate", size=SIZE, color=INK)
    return _png(canvas)


def mean_roc(curves: Sequence[tuple[Array, Array]], points: int = 201) -> tuple[Array, Array]:
    """Mean true positive rate of several ROC curves at equal false positive rates (vertical averaging, Fawcett 2006)."""
    at = np.linspace(0, 1, points)
    true = [np.interp(at, *_function(false, rate)) for false, rate in curves]
    return np.concatenate([[0.0], at]), np.concatenate([[0.0], np.mean(true, 0)])


def _function(false: Array, true: Array) -> tuple[Array, Array]:
    """The curve with its highest point alone where it rises vertically, so that it can be read at a rate."""
    last = np.append(np.diff(false) > 0, True)
    return false[last], true[last]


def picture(image: Array, *, side: int = 96) -> bytes:
    """One image, shape (channels, height, width) in [0, 1], enlarged by a whole number to about `side` pixels.

    Other numbers of channels than 1 and 3 are shown as their mean.
    """
    pixels = image if image.shape[0] == 3 else image.mean(0, keepdims=True)
    values = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    shown = Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0)))
    factor = max(1, round(side / max(shown.size)))
    buffer = io.BytesIO()
    shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def sheet(rows: Sequence[tuple[str, Sequence[bytes]]]) -> bytes:
    """Images, as `picture` gives them, of equal size in rows that have a name each."""
    tiles = [[Image.open(io.BytesIO(png)).convert("RGB") for png in images] for _, images in rows]
    across, gap, names = max(map(len, tiles)), 6, 13 * max(len(name) for name, _ in rows) + 12
    wide, high = (side + gap for side in tiles[0][0].size)
    width, height = names + across * wide, len(rows) * high
    canvas = Canvas(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for down, (name, _) in enumerate(rows):
        canvas.text(6 / width, 1 - (down + 0.5) * high / height, name, size=SIZE - 1, color=INK, va="center")
    shown = Image.open(io.BytesIO(_png(canvas))).convert("RGB")
    for down, row in enumerate(tiles):
        for place, tile in enumerate(row):
            shown.paste(tile, (names + place * wide, down * high + gap // 2))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _apart(heights: Sequence[float], least: float = 0.085) -> list[float]:
    """Heights for labels at these ends of lines, moved apart until none covers another, inside [0, 1]."""
    order = np.argsort(heights, kind="stable")
    moved = np.asarray(heights, dtype=float)[order]
    for place in range(1, len(moved)):
        moved[place] = max(moved[place], moved[place - 1] + least)
    ceiling = 1.0
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], ceiling)
        ceiling = moved[place] - least
    placed = np.empty(len(moved))
    placed[order] = moved
    return [float(height) for height in placed]


def _axes(height: float = HEIGHT) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = canvas.subplots()
    axes.grid(True, color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SIZE, colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    return canvas, axes


def _percent(set_ticks: Callable[..., Any]) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    set_ticks(ticks, [f"{tick:.0%}" for tick in ticks])


def _png(canvas: Canvas) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
