"""Amnesiac unlearning: take back the recorded updates of the batches that held forgotten records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.learn._trajectory import Recorder, Trajectory, set_weights
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, batch_sizes, drawn
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner, train_mode


@dataclass(frozen=True)
class Amnesiac(Unlearner):
    """θ_u = θ − Σ_s (θ_{s+1} − θ_s) over the recorded steps s whose batch held a forgotten record; then, where wanted, a
    repair by plain SGD on the retain set (Graves, Nagisetty & Ganesh 2021; after the paper, details reconstructed).

    What a batch did goes whole, the part of its other records too, so with many forgotten records little of the training
    is left: where every batch held one, the result is the initial weights, and a repair is training anew. The updates that
    came later were computed at weights in which the forgotten records had a part, and with momentum they hold part of the
    updates that go: neither is undone. Batch norm's running statistics stay as they are, but for what a repair does to
    them. Guarantees nothing.

    The updates taken back leave the record, so none is taken back twice, and what a repair does enters it, so that a later
    request takes it back too.
    """

    needs = "recorded"
    aliases = ("amnesiac unlearning",)
    about = "take back the recorded updates of the batches that held forgotten records"
    paper = "Graves et al. 2021"
    deviations = (
        "the updates of all batches are kept, not of sensitive ones only; repair is plain SGD and off by default"
    )
    spends = (
        "next to nothing, and `repair_epochs` passes over the retain set; memory and disk for every step of training"
    )
    use = "for a few records in large batches, with a repair epoch; accuracy falls fast with their number"

    repair_epochs: int = setting(
        0, "passes over the retain set afterwards", source="the paper repairs where accuracy asks for it", least=0
    )
    lr: float = setting(
        0.01, "learning rate of the repair", source="ours: that of finetune", search=(1e-3, 0.3), above=0
    )
    batch_size: int = setting(128, "records a step of the repair", source="ours: that of training", least=1)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor]:
        left = without(Trajectory.of(trained, "amnesiac"), forget)
        set_weights(model, left.weights[-1])
        if self.repair_epochs:
            left = joined(left, self.repair(model, trained, retain, rng, meter))
        return {**trained.kept, **left.kept()}

    def repair(self, model: nn.Module, trained: Trained, retain: Examples, rng: Rng, meter: Meter) -> Trajectory:
        """Fine-tunes in place, and returns the record of it."""
        sgd = torch.optim.SGD(model.parameters(), self.lr)
        train_mode(model, len(retain), self.batch_size)
        steps = self.repair_epochs * len(batch_sizes(len(retain), self.batch_size))
        recorder = Recorder(model, retain.ids, steps)
        for epoch in range(self.repair_epochs):
            for rows in drawn(len(retain), self.batch_size, rng.child("epoch", epoch), name="amnesiac: repair"):
                recorder.see(model, rows, self.lr)
                batch = retain.batch(rows)
                meter.step(trained.task.loss(model, batch), sgd, len(batch))
        return recorder.finish(model)


def without(run: Trajectory, forget: Examples) -> Trajectory:
    """The run without the steps whose batch held one of these records, as if those had changed nothing."""
    touched = [bool(gone.any()) for gone in run.gone(forget.ids)]
    shift = torch.zeros_like(run.weights[0], dtype=torch.float64)  # sum of the updates taken back so far
    weights = torch.empty_like(run.weights[: len(run) - sum(touched) + 1])
    place = 0
    for step, goes in enumerate(touched):
        if goes:
            shift += run.weights[step + 1].double() - run.weights[step].double()
        else:
            weights[place] = run.weights[step] - shift
            place += 1
    weights[place] = run.weights[-1] - shift
    stay = [step for step, goes in enumerate(touched) if not goes]
    rows, rates = [run.rows[step] for step in stay], run.rates[stay]
    return Trajectory(weights, rows, rates, run.ids, "subtracted" if any(touched) else run.origin)


def joined(first: Trajectory, second: Trajectory) -> Trajectory:
    """One run after the other; the second begins where the first ended."""
    ids = np.concatenate([first.ids, second.ids])
    names, where = np.unique(ids, return_inverse=True)
    places = torch.from_numpy(where)
    rows = [places[rows] for rows in first.rows] + [places[rows + len(first.ids)] for rows in second.rows]
    weights, rates = torch.cat([first.weights[:-1], second.weights]), torch.cat([first.rates, second.rates])
    return Trajectory(weights, rows, rates, names, "subtracted")
