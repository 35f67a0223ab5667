"""Retraining from scratch on the retain set: the reference of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner


@dataclass(frozen=True)
class Retrain(Unlearner):
    """The model's own learner and recipe on the retain set, from fresh weights and a fresh seed (Cao & Yang 2015).

    Exact: the result has the distribution of a model that never saw the forgotten records. It does not follow that
    nothing about them can be inferred from comparing it with the original, nor that it resists UMA instance-wise
    (UMA paper, Table 2). With `epochs` it has the distribution of a training of that length, as exact and as far from the original.
    """

    guarantee = "exact"
    aliases = ("retraining",)
    about = "train again without the forgotten records; exact"
    paper = "Cao and Yang 2015"
    spends = "all of training again, on the records that stay"
    use = "when it can be afforded: the reference that every other method is judged by"

    epochs: int | None = setting(None, "passes over the retain set; none: the recipe's", source="ours", least=1)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor]:
        if trained.learner is None or trained.recipe is None or trained.factory is None:
            raise BadInput(
                "retrain", got="weights without a recipe", expected="how they were trained", do="pass --recipe"
            )
        recipe = trained.recipe if self.epochs is None else replace(trained.recipe, epochs=self.epochs)
        fresh = trained.learner.fit(
            trained.task,
            retain,
            recipe,
            trained.factory,
            rng=rng,
            checkpoint=trained.checkpoint,
            device=trained.device,
            initial=trained.initial() if trained.learner.pretraining else None,
        )
        model.load_state_dict(fresh.model.state_dict())
        meter.absorb(fresh.cost)
        return fresh.kept
