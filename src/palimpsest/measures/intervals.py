"""Intervals: exact binomial ones for shares, bootstrap ones for the rest, and paired differences over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from scipy.stats import beta

from palimpsest.errors import BadInput
from palimpsest.types import Array, Measure

REPLICATES = 1000
LEVEL = 0.95


@lru_cache(maxsize=64)
def resamples(n: int, stream: str = "") -> Array:
    """Bootstrap resamples of n units, shape (REPLICATES, n). Equal n and stream give equal draws, so that statistics of the
    same units on two models are resampled together."""
    seed = int.from_bytes(f"{stream}/{n}".encode()[-8:].rjust(8, b"\0"), "big")
    drawn: Array = np.random.default_rng(seed).integers(0, n, (REPLICATES, n), dtype=np.int32)
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


def binomial(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
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
    name: str, of: Callable[..., float], *groups: Array, at: Mapping[str, float] | None = None, replicates: int = 200
) -> Measure:
    """Any statistic of one or more groups of units, each resampled on its own, with its percentile bootstrap interval."""
    arrays = [np.asarray(group) for group in groups]
    for values in arrays:
        _some(name, values)
    draws = [resamples(len(values), f"group{index}") for index, values in enumerate(arrays)]
    drawn = np.array(
        [of(*(values[draw[b]] for values, draw in zip(arrays, draws, strict=True))) for b in range(replicates)]
    )
    low, high = percentile(drawn)
    total = sum(len(values) for values in arrays)
    # as many replicates as the other measures have, so that differences line up
    repeated = np.resize(drawn, REPLICATES)
    return Measure(name, float(of(*arrays)), low, high, total, dict(at or {}), repeated)


def percentile(replicates: Array, level: float = LEVEL) -> tuple[float, float]:
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(replicates, [tail, 100 - tail])
    return float(low), float(high)


def difference(name: str, subjects: Sequence[Measure], controls: Sequence[Measure], *, level: float = LEVEL) -> Measure:
    """Mean over seeds of subject minus control, paired by seed and by unit.

    Two-level bootstrap: seeds are drawn with replacement, then each drawn seed contributes one of its paired replicates.
    With one seed the interval covers the records only.
    """
    if not subjects or len(subjects) != len(controls):
        raise BadInput(
            name, got=f"{len(subjects)} subjects and {len(controls)} controls", expected="one control per subject"
        )
    deltas = np.array([_replicates(s) - _replicates(c) for s, c in zip(subjects, controls, strict=True)])
    seeds, replicates = deltas.shape
    rng = np.random.default_rng(seeds)
    picked = rng.integers(0, seeds, (replicates, seeds))
    columns = rng.permuted(np.tile(np.arange(replicates), (seeds, 1)), axis=1).T
    pooled = deltas[picked, columns].mean(1)
    low, high = percentile(pooled, level)
    value = float(np.mean([s.value - c.value for s, c in zip(subjects, controls, strict=True)]))
    n = sum(measure.n for measure in subjects)
    return Measure(name, value, min(low, value), max(high, value), n, dict(subjects[0].at), pooled)


def average(name: str, measures: Sequence[Measure]) -> Measure:
    """Mean over seeds, with the two-level bootstrap interval of `difference`."""
    zeros = [Measure(m.name, 0.0, 0.0, 0.0, m.n, m.at, np.zeros(len(_replicates(m)))) for m in measures]
    return difference(name, measures, zeros)


def _replicates(measure: Measure) -> Array:
    if measure.replicates is None:
        raise BadInput(measure.name, got="a measure without bootstrap replicates", expected="one made from scores")
    return measure.replicates


def _some(name: str, values: Array) -> int:
    if not len(values):
        raise BadInput(name, got="no units", expected="at least one")
    if not np.isfinite(values).all():
        raise BadInput(name, got="scores that are not finite", expected="finite scores", do="look at the cell's model")
    return len(values)
