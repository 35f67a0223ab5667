"""What attacks share that hand in poisoned records: who the adversary is, and what it holds.

The adversary's own records are those that the audit's requests name: it alters them in `prepare`, the model is trained on them, and
the requests ask for exactly them to be forgotten. `score` says what is left of that in a model.
"""

from __future__ import annotations

from torch import Tensor

from palimpsest.threat import ThreatModel
from palimpsest.types import Examples

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
    """The records' inputs as they could be handed in, to be altered."""
    return {name: value.float().cpu() for name, value in own.batch().inputs.items()}
