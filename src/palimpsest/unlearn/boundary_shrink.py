"""Boundary shrink: teach each forgotten record the class on the other side of its nearest decision boundary."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, shuffled
from palimpsest.rng import Rng
from palimpsest.task import Classification, Task, evaluating
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner, train_mode


@dataclass(frozen=True)
class BoundaryShrink(Unlearner):
    """Fine-tunes on D_u under each record's nearest other class (Chen et al. 2023, "Boundary Unlearning", with its public code's
    settings).

    That class is the one, other than the record's own, that the original model finds likeliest at x + bound·sign(∇ℓ(x, y)), one
    step of the fast gradient sign method. With `repair` each epoch ends with a pass over D_r, as random labels have it, which the
    paper does without. Guarantees nothing: the forget records are still trained on.
    """

    tasks = (Classification.name,)
    trains_on_forget = True
    aliases = ("BS",)
    about = "the nearest other class as label of each forgotten record"
    paper = "Chen et al. 2023, Boundary Unlearning"
    deviations = "`repair`, off by default, adds passes over the retain set"
    spends = "`epochs` passes over the forget set and one gradient of the input for each record; with `repair` over all records"
    use = "class-wise; with `repair` where random labels cost accuracy or are brought back"

    lr: float = setting(1e-5, "learning rate", source="public code", search=(1e-5, 0.3), above=0)
    epochs: int = setting(10, "passes over the forget set", source="public code", least=1)
    bound: float = setting(
        0.1,
        "size of the step that finds the nearest class, as a share of the domain's width",
        source="public code",
        above=0,
    )
    repair: bool = setting(
        False, "a pass over the retain set after each over the forget set", source="ours; paper: none"
    )
    batch_size: int = setting(64, "records a step", source="public code", least=1)
    momentum: float = setting(0.9, "SGD momentum", source="public code", least=0, below=1)
    weight_decay: float = setting(0.0, "decay of all weights", source="public code", least=0)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        task = trained.task
        labels = nearest_classes(model, task, forget, self.bound, batch_size=self.batch_size, meter=meter)
        relabelled = replace(forget, targets=labels)
        sgd = torch.optim.SGD(model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)
        for epoch in range(self.epochs):
            stream = rng.child("epoch", epoch)
            parts = [("nearest classes", relabelled, "forget"), *([("retain set", retain, "retain")] * self.repair)]
            for told, part, name in parts:
                train_mode(model, len(part), self.batch_size)
                for batch in shuffled(part, self.batch_size, stream.child(name), name=told):
                    meter.step(task.loss(model, batch), sgd, len(batch))


def nearest_classes(
    model: nn.Module, task: Task, records: Examples, bound: float, *, batch_size: int, meter: Meter
) -> Tensor:
    """For each record the likeliest class but its own after one step of size `bound` up its loss, within the domain; shape (n,)."""
    found = []
    low, high = task.domain
    with evaluating(model):
        for batch in records.batches(batch_size):
            point = batch.inputs[task.attacked_input].detach().clone().requires_grad_(True)
            moved = replace(batch, inputs={**batch.inputs, task.attacked_input: point})
            (slope,) = torch.autograd.grad(
                task.loss_of(task.outputs(model, moved), batch.targets, reduction="sum"), point
            )
            edge = (point + bound * (high - low) * slope.sign()).clamp(low, high).detach()
            beyond = replace(batch, inputs={**batch.inputs, task.attacked_input: edge})
            posterior = task.posterior(model, beyond)
            found.append(posterior.scatter(1, batch.targets[:, None], -1.0).argmax(1))
            meter.count(len(batch))
    return torch.cat(found)
