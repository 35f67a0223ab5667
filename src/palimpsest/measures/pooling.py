"""One measure out of several of a seed: of its controls, and of its separate requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from palimpsest.types import Measure, Scores

REQUEST = "request"
"""The column that says which separate request a unit's scores are from."""


def pooled(measures: Sequence[Measure]) -> Measure:
    """The mean of the same measure of one seed, with the mean ends of its intervals."""
    if len(measures) == 1:
        return measures[0]
    first = measures[0]
    value = float(np.mean([measure.value for measure in measures]))
    replicates = np.mean([measure.replicates for measure in measures if measure.replicates is not None], axis=0)
    low, high = (float(np.mean([getattr(measure, end) for measure in measures])) for end in ("low", "high"))
    return Measure(first.name, value, low, high, first.n, first.at, replicates)


def of_requests(parts: Sequence[Scores]) -> Scores:
    """The scores of separate requests below each other, with the column that keeps them apart."""
    places = np.repeat(np.arange(len(parts)), [len(part.ids) for part in parts])
    whole = Scores.joined(parts)
    return replace(whole, arrays={**whole.arrays, REQUEST: places})


def measured(scores: Scores, measure: Callable[[Scores], Sequence[Measure]]) -> tuple[Measure, ...]:
    """What is measured on scores; of separate requests, what is measured on each, taken together."""
    if REQUEST not in scores.arrays:
        return tuple(measure(scores))
    bare = replace(scores, arrays={name: values for name, values in scores.arrays.items() if name != REQUEST})
    which = scores[REQUEST]
    return together([{found.key: found for found in measure(bare.where(which == place))} for place in np.unique(which)])


def together(each: Sequence[Mapping[Any, Measure]]) -> tuple[Measure, ...]:
    """The means of those measures that all requests have."""
    return tuple(pooled([found[key] for found in each]) for key in each[0] if all(key in found for found in each))
