"""Fine-tuning: a few steps on other records before the model is released, so that its difference says less."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.defend.base import ModelRelease
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Batch, Examples


@dataclass(frozen=True)
class Finetuning(ModelRelease):
    """Fine-tuning of the released model on a few additional records (inversion paper, section 7).

    The paper takes 100 "additional samples" and prints learning rates, no passes; here all go into each step, and momentum is
    none. They are drawn from the retained records, on which the model was trained already: a release is given no others. Their
    gradient is smaller than that of records that are new to the model, so the steps move it less, and its accuracy with it, than
    the paper's may. Batch norm keeps its statistics.

    Guarantees nothing: what the steps add points along the gradient of those records, which an attacker who holds some of them can
    subtract. At small rates the model gets better, as the paper's Table 4 has it, and not worse.
    """

    revision = 2  # the records themselves are not stored
    weakens = "feature_inversion"
    paper = "inversion paper, section 7"
    about = "takes a few steps on other records before release"

    records: int = setting(100, "additional records", source="inversion paper, 7", least=1)
    lr: float = setting(0.001, "learning rate", source="inversion paper, 7: 0.0001 to 0.01", above=0)
    steps: int = setting(10, "steps on all of them", source="ours", least=1)

    def part(self, task: Task) -> nn.Module:
        return Samples(self.records, task)

    def prepare(self, part: nn.Module, task: Task, retain: Examples, *, rng: Rng, meter: Meter) -> None:
        if not isinstance(part, Samples):
            raise TypeError(f"got {type(part).__name__}, expected what `part` returns")
        chosen = rng.child("samples").numpy().permutation(len(retain))[: self.records]
        part.places[: len(chosen)] = torch.from_numpy(chosen)
        part.hold(retain)

    def restore(self, part: nn.Module, retain: Examples) -> None:
        if isinstance(part, Samples):
            part.hold(retain)

    def release(self, part: nn.Module, model: nn.Module) -> nn.Module:
        if not isinstance(part, Samples):
            raise TypeError(f"got {type(part).__name__}, expected what `part` returns")
        tuned = copy.deepcopy(model).eval()
        weights = [parameter.requires_grad_(True) for parameter in tuned.parameters()]
        device = weights[0].device
        batch = part.batch(device)
        for _ in range(self.steps):
            with torch.enable_grad():
                slopes = torch.autograd.grad(
                    part.task.loss(tuned, batch), weights, allow_unused=True, materialize_grads=True
                )
            with torch.no_grad():
                for weight, slope in zip(weights, slopes, strict=True):
                    weight -= self.lr * slope
        return tuned


class Samples(nn.Module):
    """Records as a model's shared part. places: where they are in the retain set, −1 for none; that alone is stored of them."""

    places: Tensor

    def __init__(self, records: int, task: Task) -> None:
        super().__init__()
        self.task = task
        self.held: Batch | None = None
        self.register_buffer("places", torch.full((records,), -1))

    def hold(self, retain: Examples) -> None:
        """Takes the records that `places` tells from the set that they were drawn from."""
        self.held = retain.take(self.places[self.places >= 0].cpu().numpy()).batch()

    def batch(self, device: torch.device) -> Batch:
        if self.held is None:
            raise RuntimeError("finetuning: got a part without its records, expected `restore` to be called first")
        return Batch(
            {self.task.attacked_input: self.held.inputs[self.task.attacked_input].to(device)},
            self.held.targets.to(device),
        )
