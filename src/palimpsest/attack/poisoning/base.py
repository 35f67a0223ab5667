"""What attacks share that hand in poisoned records: who the adversary is, and what it holds.

The adversary's own records are those that the audit's requests name: it alters them in `prepare`, the model is trained on them, and
the requests ask for exactly them to be forgotten, or for a detected share of them. `score` says what is left of that in a model.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from palimpsest.case import Case
from palimpsest.threat import ThreatModel
from palimpsest.types import Array, Examples

CONTRIBUTOR = ThreatModel(
    roles=("R1",),
    goals=("G2",),
    knowledge="K3",
    phases=("P1",),
    sees="labels",
    models="after",
)
"""Somebody who contributes records to the training set and later asks for them to be forgotten; it sees no model."""


def contents(own: Examples) -> dict[str, Tensor]:
    """The records' inputs as they could be handed in, to be altered; masks stay masks."""
    inputs = own.batch().inputs
    return {name: (value if value.dtype == torch.bool else value.float()).cpu() for name, value in inputs.items()}


def detected(case: Case) -> Array:
    """Which of the records that were handed in were asked to be forgotten so far, (m,)."""
    found: Array = np.isin(case.submission.ids, sorted(case.forgotten))
    return found


def groups(found: Array) -> dict[str, Array]:
    """The detected records and the others as masks, where there are both; nothing else."""
    return {"detected": found, "undetected": ~found} if found.any() and not found.all() else {}


def in_bytes(change: Tensor, epsilon: float, width: Tensor) -> Tensor:
    """Changes of records that are stored as bytes: the nearest whole 255ths of the range, of `width`, that keep within ε of it."""
    most = math.floor(255 * epsilon + 1e-6)
    return (change * 255 / width).round().clamp(-most, most) / 255 * width
