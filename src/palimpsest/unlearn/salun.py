"""Saliency unlearning: random labels, but only the weights that matter to the forget set may move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, trainable
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.random_label import ORDER, relabelled


@dataclass(frozen=True)
class SalUn(Unlearner):
    """Random labels under a weight mask m = top-k of |Σ∇CE(D_u)|, taken once at θ (Fan et al. 2024, with their public code's
    settings).

    The mask ranks all weights of the model together; the model is in evaluation mode for it. After each step the masked-out
    weights get their old values back and lose their momentum, as weight decay and momentum would move them: they stay
    bit-identical. Batch norm's running statistics are no weights and do move.

    Classifiers are shown the forget set and the retain set one after the other in each epoch, as the public code does; a model of
    images takes a step on a batch of both, ℓ(θ; D_u under noise) + α ℓ(θ; D_r), the form that its paper gives to generation.
    Guarantees nothing.
    """

    trains_on_forget = True
    aliases = ("SalUn",)
    about = "random labels under a weight saliency mask"
    paper = "Fan et al. 2024"
    deviations = (
        "after each step masked weights are put back and their momentum is cleared, as public code does for "
        "its mask to hold"
    )
    spends = "those of random labels and one gradient of the forget set"
    use = "class-wise and for random records, where passes over the retain set can be afforded"

    share: float = setting(
        0.5, "share of the weights that may move (k), in [0, 1]", source="public code", least=0, most=1
    )
    lr: float = setting(0.013, "learning rate", source="public code", search=(1e-3, 0.3), above=0)
    epochs: int = setting(10, "passes over the forget set and the retain set", source="public code", least=1)
    batch_size: int = setting(256, "records a step", source="public code", least=1)
    momentum: float = setting(0.9, "SGD momentum", source="public code", least=0, below=1)
    weight_decay: float = setting(5e-4, "decay of the weights that may move", source="public code", least=0)
    order: Literal["by task", "passes", "joint"] = setting(
        "by task", ORDER, source="public code for classifiers; paper for generation"
    )
    alpha: float = setting(1.0, "weight of the retain set's loss in a joint step (α)", source="paper", above=0)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        parameters = trainable(model)
        masks = saliency_masks(model, trained.task, forget, self.share, batch_size=self.batch_size, meter=meter)
        start = [parameter.detach().clone() for parameter in parameters]
        sgd = torch.optim.SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay)

        @torch.no_grad()
        def restore() -> None:
            for parameter, mask, old in zip(parameters, masks, start, strict=True):
                parameter.copy_(torch.where(mask, parameter, old))
                buffer = sgd.state[parameter].get("momentum_buffer")
                if buffer is not None:
                    buffer.mul_(mask)

        relabelled(
            model, trained.task, retain, forget, sgd, self.batch_size, self.epochs, order=self.order, alpha=self.alpha,
            rng=rng, meter=meter, after_step=restore,
        )  # fmt: skip


def saliency_masks(
    model: nn.Module, task: Task, forget: Examples, share: float, *, batch_size: int, meter: Meter
) -> list[Tensor]:
    """For each parameter which of its entries may move: the `share` of all entries with the largest |Σ∇CE(D_u)|.

    Exactly round(share · entries) are chosen over the whole model; of equal ones the earlier. Leaves the model in evaluation mode.
    """
    model.eval()
    parameters = trainable(model)
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for batch in forget.batches(batch_size):
        loss = task.loss(model, batch, reduction="sum")
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient
        meter.count(len(batch))
    saliency = torch.cat([total.abs().reshape(-1) for total in totals])
    chosen = torch.zeros_like(saliency, dtype=torch.bool)
    chosen[torch.argsort(saliency, descending=True, stable=True)[: round(share * len(saliency))]] = True
    parts = torch.split(chosen, [parameter.numel() for parameter in parameters])
    return [part.view(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)]
