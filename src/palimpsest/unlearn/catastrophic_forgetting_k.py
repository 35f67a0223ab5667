"""Catastrophic forgetting of the last k blocks: they are trained on, the rest is frozen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, train, trainable
from palimpsest.learn.recipe import Recipe
from palimpsest.models._ensemble import Ensemble
from palimpsest.models.base import blocks
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner


@dataclass(frozen=True)
class CatastrophicForgettingK(Unlearner):
    """The last k blocks are trained on D_r, all others stay bit-identical, running statistics included (CF-k; Goel et al. 2022).

    The model's recipe is followed where a setting is none: its augmentation, its schedule. Guarantees nothing: the
    frozen blocks have seen the forget set.
    """

    aliases = ("CF-k", "CFk")
    about = "train the last k blocks on the retain set, the rest frozen"
    paper = "Goel et al. 2022"
    spends = "`epochs` passes over the retain set, backwards through the last k blocks only"
    use = "as the cheap neighbour of EU-k; the poisoning paper shows it to keep poisons"

    k: int = setting(
        3,
        "blocks that are trained, the head being one",
        source="public code: the head and the last two residual blocks",
        least=1,
    )
    lr: float | None = setting(
        0.01, "learning rate; none: the recipe's", source="public code", search=(1e-3, 0.3), above=0
    )
    epochs: int | None = setting(10, "passes over the retain set; none: the recipe's", source="public code", least=1)
    batch_size: int | None = setting(256, "records a step; none: the recipe's", source="public code", least=1)
    momentum: float | None = setting(0.9, "SGD momentum; none: the recipe's", source="public code", least=0, below=1)
    weight_decay: float | None = setting(
        1e-4, "decay of the weights that are trained; none: the recipe's", source="public code", least=0
    )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        last = self.last(model)
        moving = {id(parameter) for block in last for parameter in block.parameters()}
        every = trainable(model)
        for parameter in every:
            parameter.requires_grad_(id(parameter) in moving)
        inside = {id(module) for block in last for module in block.modules()}
        still = [module for module in model.modules() if id(module) not in inside and not _holds(module, inside)]
        train(
            model,
            trained.task,
            retain,
            self.recipe(trained),
            rng=rng,
            meter=meter,
            checkpoint=trained.checkpoint,
            frozen=still,
            name=name_of(self),
        )
        for parameter in every:
            parameter.requires_grad_(True)

    def check_model(self, model: nn.Module) -> None:
        super().check_model(model)
        if isinstance(model, Ensemble):
            raise BadInput(
                name_of(self), got="an ensemble", expected="one model with blocks", do="use sisa, or another learner"
            )
        self.last(model)

    def last(self, model: nn.Module) -> list[nn.Module]:
        """The last k blocks that have weights to train. Raises BadInput where the model has fewer."""
        found = [block for block in blocks(model) if trainable(block) or not trainable(model)]
        if self.k > len(found):
            raise BadInput(f"{name_of(self)}.k", got=self.k, expected=f"at most {len(found)}, the model's blocks")
        return found[-self.k :]

    def recipe(self, trained: Trained) -> Recipe:
        """The model's recipe (a plain one for imported weights), with this method's own settings in it."""
        names = ("lr", "epochs", "batch_size", "momentum", "weight_decay")
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        missing = [name for name in names if name not in own]
        if trained.recipe is None and missing:
            got = f"no {missing[0]}, and weights without a recipe"
            raise BadInput(name_of(self), got=got, expected="a value for it", do=f"set {missing[0]}")
        return replace(trained.recipe or Recipe(schedule="constant"), **own)


def _holds(module: nn.Module, inside: Iterable[int]) -> bool:
    return any(id(part) in inside for part in module.modules())
