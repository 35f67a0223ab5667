"""SCRUB+R: SCRUB, rewound to the epoch at which the forget set looks unseen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples
from palimpsest.unlearn.scrub import Scrub


@dataclass(frozen=True)
class ScrubRewind(Scrub):
    """SCRUB (which see), of whose weights after each epoch those are kept whose error on D_u is nearest the last ones' error on
    validation records of the same classes: records are forgotten no further than to look unseen (Kurmanji et al. 2023,
    SCRUB+R).

    Needs validation records of the forgotten classes, which then are no validation records for anything else. Guarantees nothing.
    """

    aliases = ("SCRUB+R",)
    about = "SCRUB, back to the epoch at which the forget set looks unseen"
    use = "for random records where membership inference is the concern"

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        alike = _unseen(trained, forget)
        epochs: list[tuple[float, dict[str, Tensor]]] = []  # error on the forget set, weights
        for _ in self.passes(model, trained, retain, forget, rng=rng, meter=meter):
            state = {name: value.clone() for name, value in model.state_dict().items()}
            epochs.append((_error(trained.task, model, forget), state))
        goal = _error(trained.task, model, alike)
        model.load_state_dict(min(epochs, key=lambda one: abs(one[0] - goal))[1])


def _unseen(trained: Trained, forget: Examples) -> Examples:
    """Validation records of the forgotten classes."""
    if trained.validation is None:
        got, do = "no validation records", "unlearn through an audit, or pass them as Trained.validation"
        raise BadInput("scrub_rewind", got=got, expected="records that the model never saw", do=do)
    of_classes = torch.isin(trained.validation.targets, forget.targets)
    if not bool(of_classes.any()):
        got = "no validation record of the forgotten classes"
        raise BadInput("scrub_rewind", got=got, expected="at least one", do="hold out more, or use scrub")
    return trained.validation.take(of_classes.nonzero().flatten().tolist())


@torch.no_grad()
def _error(task: Task, model: nn.Module, records: Examples) -> float:
    """Share of records whose class the model, put into evaluation mode, does not name."""
    model.eval()
    wrong = sum(int((task.outputs(model, batch).argmax(1) != batch.targets).sum()) for batch in records.batches(256))
    return wrong / len(records)
