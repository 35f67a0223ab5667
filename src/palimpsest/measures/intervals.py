"""Intervals: exact binomial ones for shares, bootstrap ones for the rest, and paired differences over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import beta, norm
from scipy.stats import t as student

from palimpsest.errors import BadInput
from palimpsest.types import Array, Measure

REPLICATES = 1000
LEVEL = 0.95
LEAST = 1.0
"""Resamples beyond each end of an interval that are wanted at least."""
TOGETHER = 1_000_000
"""Resampled units in memory at once."""


@lru_cache(maxsize=16)
def resamples(n: int, stream: str = "", count: int = REPLICATES) -> Array:
    """Bootstrap resamples of n units, shape (count, n). Equal n and stream give equal draws, so that statistics of the
    same units on two models are resampled together."""
    seed = int.from_bytes(f"{stream}/{n}".encode()[-8:].rjust(8, b"\0"), "big")
    drawn: Array = np.random.default_rng(seed).integers(0, n, (count, n), dtype=np.int32)
    return drawn


def resampled_means(values: Array, stream: str = "", blocks: int = 2000) -> Array:
    """Means of bootstrap resamples, shape (REPLICATES,). Above twice `blocks` units, random blocks of units are resampled in
    their place: the mean of independent units has the same spread, and memory stays bounded."""
    n = len(values)
    if n <= 2 * blocks:
        drawn: Array = values[resamples(n, stream)].mean(1)
        return drawn
    cuts = np.linspace(0, n, blocks, endpoint=False).astype(int)
    shuffled = values[np.random.default_rng(n).permutation(n)]
    sums, sizes = np.add.reduceat(shuffled, cuts), np.diff(np.append(cuts, n))
    picked = resamples(blocks, stream)
    blocked: Array = sums[picked].sum(1) / sizes[picked].sum(1)
    return blocked


def share(name: str, hits: Array, *, at: Mapping[str, float] | None = None, stream: str = "") -> Measure:
    """The share of units that are hits (Boolean or 0/1), with the exact binomial (Clopper–Pearson) interval."""
    values = np.asarray(hits, dtype=float)
    n = _some(name, values)
    k = int(values.sum())
    low, high = binomial(k, n)
    return Measure(name, k / n, low, high, n, dict(at or {}), resampled_means(values, stream))


def binomial(hits: int | float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper–Pearson interval of a share."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def mean(name: str, values: Array, *, at: Mapping[str, float] | None = None, stream: str = "") -> Measure:
    """The mean over units with its percentile bootstrap interval."""
    values = np.asarray(values, dtype=float)
    n = _some(name, values)
    replicates = resampled_means(values, stream)
    low, high = percentile(replicates)
    return Measure(name, float(values.mean()), low, high, n, dict(at or {}), replicates)


def statistic(
    name: str,
    of: Callable[..., Any],
    *groups: Array,
    at: Mapping[str, float] | None = None,
    replicates: int = 200,
    together: bool = False,
) -> Measure:
    """Any statistic of one or more groups of units, each resampled on its own, with its percentile bootstrap interval.

    together: `of` takes groups (…, units) and gives (…), so that many resamples need one call.
    """
    arrays = [np.asarray(group) for group in groups]
    for values in arrays:
        _some(name, values)
    draws = [resamples(len(values), f"group{index}", replicates) for index, values in enumerate(arrays)]
    total = sum(len(values) for values in arrays)
    step = max(1, TOGETHER // total) if together else 1
    parts = [slice(start, start + step) for start in range(0, replicates, step)] if together else range(replicates)
    drawn = np.hstack([of(*(values[draw[part]] for values, draw in zip(arrays, draws, strict=True))) for part in parts])
    low, high = percentile(drawn)
    return Measure(name, float(of(*arrays)), low, high, total, dict(at or {}), drawn)


def centred(measure: Measure) -> Measure:
    """The measure with its replicates moved so that their mean is its value, for statistics that resampling biases.

    A Fréchet distance grows, and an Inception score falls or grows, where resamples hold some units twice. The interval then
    covers the spread of the statistic, not its bias, which is alike for equally many units.
    """
    if measure.replicates is None:
        return measure
    moved = measure.replicates + (measure.value - float(np.mean(measure.replicates)))
    low, high = percentile(moved)
    return replace(measure, low=min(low, measure.value), high=max(high, measure.value), replicates=moved)


def percentile(replicates: Array, level: float = LEVEL) -> tuple[float, float]:
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(replicates, [tail, 100 - tail])
    return float(low), float(high)


def combination(
    name: str, terms: Sequence[tuple[float, Sequence[Measure]]], *, level: float = LEVEL, fixed: bool = False
) -> Measure:
    """Mean over seeds of a weighted sum of measures, each term's one per seed, paired by seed and by unit.

    Two sources of spread are added: that of the units (paired bootstrap; equal units are resampled alike in all seeds) and
    that between seeds (Student's t on the seeds' sums, wide where seeds are few). With one seed the interval covers the
    units only. Where there are too few resamples to see the tail that the level asks for, a normal distribution of their spread
    stands in. A share of 0 or 1, which no resample moves, brings its exact interval, combined with the rest as for independent
    ones (MOVER; Zou & Donner 2008): too wide rather than too narrow. Where each seed has one unit, such as one target of a poison,
    the seeds are the units, and the interval is the wider one of a share of them and of their spread. fixed: of these seeds alone,
    whose spread is then not added.
    """
    seeds = len(terms[0][1]) if terms else 0
    if not seeds or any(len(measures) != seeds for _, measures in terms):
        raise BadInput(
            name, got=f"{[len(measures) for _, measures in terms]} measures", expected="one per seed in each term"
        )
    every = [measure for _, measures in terms for measure in measures]
    sums = np.sum([weight * np.array([m.value for m in measures]) for weight, measures in terms], axis=0)
    drawn = np.sum([weight * np.mean([_replicates(m) for m in measures], axis=0) for weight, measures in terms], axis=0)
    value = float(sums.mean())
    below, above = 0.0, 0.0
    if drawn.std() > 0 or any(_replicates(measure).std() > 0 for measure in every):
        few = min(len(measure.replicates) for measure in every if measure.replicates is not None)
        if few * (1 - level) / 2 < LEAST:
            below = above = float(norm.ppf((1 + level) / 2) * drawn.std())
        else:
            low, high = percentile(drawn, level)
            below, above = max(0.0, value - low), max(0.0, high - value)
    for weight, measures in terms:
        down, up = (abs(weight) * _reaches(measures, side, level) for side in (0, 1))
        below, above = (
            float(np.hypot(below, down if weight > 0 else up)),
            float(np.hypot(above, up if weight > 0 else down)),
        )
    between = 0.0
    if seeds > 1 and not fixed:
        between = float(student.ppf((1 + level) / 2, seeds - 1) * sums.std(ddof=1) / np.sqrt(seeds))
    if all(m.n == 1 for m in every):  # seeds are the units, and their spread is counted already
        below, above = max(below, between), max(above, between)
    else:
        below, above = float(np.hypot(below, between)), float(np.hypot(above, between))
    low, high = value - below, value + above
    if all(m.low >= 0 and m.high <= 1 for m in every):  # of shares: no sum lies beyond what they can be
        low = max(sum(min(0.0, weight) for weight, _ in terms), low)
        high = min(sum(max(0.0, weight) for weight, _ in terms), high)
    return Measure(name, value, low, high, sum(m.n for m in terms[0][1]), dict(terms[0][1][0].at), drawn)


def difference(name: str, subjects: Sequence[Measure], controls: Sequence[Measure], *, level: float = LEVEL) -> Measure:
    """Mean over seeds of subject minus control, with the interval of `combination`."""
    if not subjects or len(subjects) != len(controls):
        raise BadInput(
            name, got=f"{len(subjects)} subjects and {len(controls)} controls", expected="one control per subject"
        )
    return combination(name, [(1.0, subjects), (-1.0, controls)], level=level)


def average(name: str, measures: Sequence[Measure], *, level: float = LEVEL) -> Measure:
    """Mean over seeds, with the interval of `combination`."""
    return combination(name, [(1.0, measures)], level=level)


def _reaches(measures: Sequence[Measure], side: int, level: float) -> float:
    """`_reach` of the mean over seeds. Shares of one unit each are together a share of as many units as there are seeds."""
    if len(measures) > 1 and all(m.n == 1 and 0 <= m.low < m.high <= 1 for m in measures):
        hits = sum(m.value for m in measures)  # of several controls of a seed, a share of each
        return abs(binomial(hits, len(measures), level)[side] - hits / len(measures))
    return float(np.mean([_reach(measure, side, level) for measure in measures]))


def _reach(measure: Measure, side: int, level: float) -> float:
    """How far the interval goes down (side 0) or up (1) from a value that no resample moves; nothing for another."""
    if _replicates(measure).std() > 0:
        return 0.0
    ends = measure.low, measure.high
    if 0 <= measure.low < measure.high <= 1 and measure.value in (0.0, 1.0):
        ends = binomial(round(measure.value * measure.n), measure.n, level)
    return abs(ends[side] - measure.value)


def _replicates(measure: Measure) -> Array:
    """As many as the others have, so that differences line up."""
    if measure.replicates is None:
        raise BadInput(measure.name, got="a measure without bootstrap replicates", expected="one made from scores")
    return measure.replicates if len(measure.replicates) == REPLICATES else np.resize(measure.replicates, REPLICATES)


def _some(name: str, values: Array) -> int:
    if not len(values):
        raise BadInput(name, got="no units", expected="at least one")
    if not np.isfinite(values).all():
        raise BadInput(name, got="scores that are not finite", expected="finite scores", do="look at the cell's model")
    return len(values)
