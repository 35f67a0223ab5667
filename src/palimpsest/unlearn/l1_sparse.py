"""Fine-tuning on the retain set under an L1 penalty: a sparser model forgets more easily."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, shuffled, trainable
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner, train_mode


@dataclass(frozen=True)
class L1Sparse(Unlearner):
    """θ ← θ − η∇(CE(D_r) + α_t·‖θ‖₁), with α_t = α(1 − epoch/(E − E₀)) in the first E − E₀ epochs and 0 in the last E₀
    (Jia et al. 2023, as in their public code).

    The norm runs over all parameters, biases and batch norm's included. Guarantees nothing: the forget set is never looked at.
    """

    aliases = ("l1-sparse",)
    about = "train on the retain set with a falling L1 penalty"
    paper = "Jia et al. 2023"
    deviations = "the penalty runs over all parameters, as in the public code"
    spends = "`epochs` passes over the retain set"
    use = "where the forget set is no longer at hand, since it looks at the retain set only"

    alpha: float = setting(
        1e-4,
        "weight of the L1 norm in the first epoch",
        source="ours, the middle of the range to search: the public code has no usable default",
        search=(1e-5, 1e-3),
        least=0,
    )
    lr: float = setting(0.01, "learning rate", source="public code", search=(1e-3, 0.3), above=0)
    epochs: int = setting(10, "passes over the retain set (E)", source="public code", least=1)
    epochs_without_l1: int = setting(
        0, "last epochs, which have no penalty (E₀), at most E", source="public code", least=0
    )
    batch_size: int = setting(256, "records a step", source="public code", least=1)
    momentum: float = setting(0.9, "SGD momentum", source="public code", least=0, below=1)
    weight_decay: float = setting(5e-4, "decay of all weights", source="public code", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs_without_l1 > self.epochs:
            expected = f"at most {self.epochs}, the number of epochs"
            raise BadInput("l1_sparse.epochs_without_l1", got=self.epochs_without_l1, expected=expected)

    def penalty(self, epoch: int) -> float:
        """α_t of epoch 0 … E−1."""
        penalised = self.epochs - self.epochs_without_l1
        return self.alpha * (1 - epoch / penalised) if epoch < penalised else 0.0

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        sgd = torch.optim.SGD(model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)
        train_mode(model, len(retain), self.batch_size)
        for epoch in range(self.epochs):
            alpha = self.penalty(epoch)
            for batch in shuffled(retain, self.batch_size, rng.child("epoch", epoch), name="l1-sparse"):
                meter.step(trained.task.loss(model, batch) + alpha * l1_norm(model), sgd, len(batch))


def l1_norm(model: nn.Module) -> Tensor:
    """Sum of the absolute values of all parameters, a scalar with gradient."""
    return torch.stack([parameter.abs().sum() for parameter in trainable(model)]).sum()
