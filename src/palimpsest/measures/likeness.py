"""How far a drawing has come from knowing nothing to being another: a share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from palimpsest.measures.image import l1
from palimpsest.types import Array

FLOOR = 0.05
"""A retain set's likeness below it counts as this much, so that a model that draws nothing well has no large ratio."""


def likeness(drawn: Tensor, wanted: Tensor, fill: Tensor, where: Tensor) -> Float[Tensor, " n"]:
    """1 − L1(drawn, wanted) / L1(fill, wanted) per image, over the pixels `where`; in [0, 1], float64.

    0: no nearer than the fill, which needs no model (or farther: the share is cut at 0); 1: the same. Images that hardly
    differ from their fill are divided by one level a value, the least that 8 bits can show, as a ratio of two roundings says
    nothing.
    """
    least = where.expand_as(fill).sum((1, 2, 3)).double()
    apart = l1(fill, wanted, where).maximum(least)
    return (1 - l1(drawn, wanted, where) / apart).clamp(0.0, 1.0)


def recovery(forget: Array, retain: Array) -> float:
    """Mean likeness on the forget set as a share of that on the retain set, at most 1.

    Two models that were trained apart draw no record alike. What they differ by on records that both have seen is no sign of
    forgetting, so it is divided out.
    """
    return min(1.0, float(np.mean(forget)) / max(FLOOR, float(np.mean(retain))))
