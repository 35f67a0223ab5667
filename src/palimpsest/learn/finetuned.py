"""Training that goes on from weights learnt before: given ones, or such as public records teach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Learner
from palimpsest.learn.loop import Checkpoint, Meter, train
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.files import hash_file, load_into, read_weights
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples


@dataclass(frozen=True)
class Finetuned(Learner):
    """Weights from a file or, without one, weights pre-trained on the public records (D₀), then the recipe on all others (D_u).

    This is the inversion paper's case (section 4.1). Given weights must fit the model whole, head included; a head for other
    classes has to be replaced first. What training started from is kept as the initial weights. Artifacts are keyed by the
    values of given weights, not by the file's name. The public records are a share of the data (`public`), and one seed's
    original and all its retrained controls start from the same pre-trained weights; their cost is that of fine-tuning alone.

    Retraining starts from the same weights. It is exact only if the records to be forgotten had no part in those: public
    records are never forgotten, and of a file that cannot be checked here.
    """

    about = "from given weights, or from such as public records teach"

    weights: str | None = setting(
        None,
        "file or checkpoint folder to start from: safetensors, .pt, .ckpt …; none: the public records teach them",
        source="the user",
    )
    pretraining_epochs: int = setting(120, "passes over the public records", source="inversion paper, 4.1", least=1)
    pretraining_batch_size: int = setting(
        128, "public records a step", source="inversion paper: that of fine-tuning", least=1
    )
    pretraining_lr: float = setting(
        0.1, "highest learning rate on public records", source="inversion paper, 4.1", above=0
    )
    pretraining_schedule: Literal["constant", "linear", "cosine", "one_cycle", "step"] = setting(
        "linear", "as in a recipe", source="inversion paper, 4.1: linearly decayed"
    )
    pretraining_augment: Literal["none", "crop", "flip", "crop+flip"] = setting(
        "none", "as in a recipe", source="inversion paper does not say"
    )

    frozen_norms: bool = setting(
        False,
        "whether batch norm keeps the statistics that it starts from; it is then no part of what tells records apart",
        source="ours; true in the inversion paper's code",
    )

    @property
    def pretraining(self) -> Recipe | None:
        if self.weights is not None:
            return None
        return Recipe(
            epochs=self.pretraining_epochs,
            batch_size=self.pretraining_batch_size,
            lr=self.pretraining_lr,
            schedule=self.pretraining_schedule,
            augment=self.pretraining_augment,
        )

    def start(self, factory: Model, task: Task, rng: Rng, initial: Mapping[str, Tensor] | None = None) -> nn.Module:
        """A fresh model with the given weights, or with `initial`, where public records taught them. Raises BadInput where there
        are none, or they cannot be read or do not fit."""
        model = super().start(factory, task, rng)
        if self.weights is not None:
            load_into(model, read_weights(self.weights), self.weights)
        elif initial is None:
            got, do = "neither weights nor public records", "pass --set data.public=0.8 or --set finetuned.weights=FILE"
            raise BadInput("finetuned", got=got, expected="one of them to start from", do=do)
        else:
            model.load_state_dict(initial)
        return model

    def learn(
        self, model: nn.Module, task: Task, examples: Examples, recipe: Recipe, *, rng: Rng, meter: Meter,
        checkpoint: Checkpoint | None,
    ) -> None:  # fmt: skip
        norms = (
            [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)] if self.frozen_norms else []
        )
        train(model, task, examples, recipe, rng=rng, meter=meter, checkpoint=checkpoint, frozen=norms)

    def identity_extra(self) -> dict[str, Any]:
        """The hash of the weights in the place of the path: a moved file is the same learner, an edited one another."""
        return {} if self.weights is None else {"weights": hash_file(self.weights)}
