"""Retraining of the last k blocks from fresh weights, the rest frozen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, trainable
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.catastrophic_forgetting_k import CatastrophicForgettingK


@dataclass(frozen=True)
class ExactUnlearningK(CatastrophicForgettingK):
    """The last k blocks start again from fresh weights and are trained on D_r; all others stay bit-identical (EU-k; Goel et
    al. 2022).

    The paper trains them for the full schedule, which is this default (settings of none are the recipe's); public code also
    has 10 epochs at lr 0.01. In spite of its name it is exact for these blocks alone, given the frozen ones, which have seen the
    forget set: guarantees nothing for the whole.
    """

    aliases = ("EU-k", "EUk")
    about = "train the last k blocks again from fresh weights, the rest frozen"
    paper = "Goel et al. 2022"
    spends = "all of training again, backwards through the last k blocks only"
    use = "where the first layers are known to be free of the forgotten records (pre-trained elsewhere)"

    lr: float | None = setting(
        None,
        "learning rate; none: the recipe's",
        source="Goel et al.; 0.01 in public code",
        search=(1e-3, 0.3),
        above=0,
    )
    epochs: int | None = setting(
        None, "passes over the retain set; none: the recipe's", source="Goel et al.; 10 in public code", least=1
    )
    batch_size: int | None = setting(None, "records a step; none: the recipe's", source="Goel et al.", least=1)
    momentum: float | None = setting(
        None, "SGD momentum; none: the recipe's", source="Goel et al.; 0.9 in public code", least=0, below=1
    )
    weight_decay: float | None = setting(
        None,
        "decay of the weights that are trained; none: the recipe's",
        source="Goel et al.; 1e-4 in public code",
        least=0,
    )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        fresh = self._fresh(model, trained, rng.child("fresh"))
        state = model.state_dict()
        names = {id(value): name for name, value in (*model.named_parameters(), *model.named_buffers())}
        with torch.no_grad():
            for block in self.last(model):
                for value in (*trainable(block), *block.buffers()):
                    name = names[id(value)]
                    state[name].copy_(fresh[name])
        super().update(model, trained, retain, forget, rng=rng, meter=meter)

    def _fresh(self, model: nn.Module, trained: Trained, rng: Rng) -> dict[str, Tensor]:
        """Weights that the model could have started from."""
        if trained.factory is None:
            got, do = "weights without a model factory", "pass --model with what builds the model"
            raise BadInput("exact_unlearning_k", got=got, expected="a way to fresh weights", do=do)
        return dict(trained.factory.untrained(trained.task, rng).state_dict())
