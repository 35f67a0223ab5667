"""What an unlearner is: a trained model goes in, another comes out; the one that went in is untouched."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from palimpsest.catalog import Checked, name_of
from palimpsest.errors import BadInput, NotFinite
from palimpsest.language import Language
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, trainable
from palimpsest.learn.recipe import Recipe
from palimpsest.models.files import not_finite
from palimpsest.reconstruction import Reconstruction
from palimpsest.rng import Rng
from palimpsest.task import Classification, check_task
from palimpsest.types import Examples, moved


@dataclass(frozen=True)
class Unlearner(Checked, ABC):
    """Base of all unlearners. `unlearn` owns the contract, `update` holds the method's own step.

    guarantee: "exact" (the distribution of retraining), "certified" (with a stated budget) or "none".
    needs: name of the learner that must have trained the model; empty for any. needs_recipe: settings of the recipe that it must
    have trained with. mixes: whether records may mix in the model, as in batch norm, or chance play a part, as in dropout.
    tasks: names of the tasks that it is for; for all where it asks nothing but the task's own loss.
    trains_on_forget: whether it takes steps on `task.loss` or `task.distillation` of forget batches, which a guard may then change.
    aliases: names the papers use. paper, deviations (from it), spends (what it costs), use (when to use it): one line each, for
    `docs/methods.md`.
    """

    kind: ClassVar[str] = "unlearners"
    revision: ClassVar[int] = 1
    guarantee: ClassVar[Literal["exact", "certified", "none"]] = "none"
    needs: ClassVar[str] = ""
    needs_recipe: ClassVar[Mapping[str, Any]] = {}
    mixes: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = (Classification.name, Language.name, Reconstruction.name)
    trains_on_forget: ClassVar[bool] = False
    aliases: ClassVar[tuple[str, ...]] = ()
    about: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    deviations: ClassVar[str] = ""
    spends: ClassVar[str] = ""
    use: ClassVar[str] = ""

    def unlearn(self, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng) -> Trained:
        """A new model, from the records to keep and the records to forget.

        The weights and mode of `trained` stay as they are. Returned: the model in evaluation mode, the ids less the
        forgotten ones, and what the method cost. Raises BadInput where the forget set is empty, overlaps the retain
        set, or holds records that the model was not trained on; NotFinite where the new weights are not finite.
        """
        if not len(forget) or not len(retain):
            raise BadInput(
                "unlearning", got=f"{len(forget)} to forget, {len(retain)} to retain", expected="at least one of each"
            )
        both = np.intersect1d(retain.ids, forget.ids)
        if len(both):
            raise BadInput(
                "unlearning", got=f"record {str(both[0])!r} in both sets", expected="disjoint retain and forget sets"
            )
        strangers = np.setdiff1d(forget.ids, trained.ids)
        if len(strangers):
            got = f"record {str(strangers[0])!r}, which the model was not trained on"
            raise BadInput(
                "unlearning", got=got, expected="ids of training records", do="use the ids stored with the case"
            )
        check_task(self, trained.task.name)
        if self.needs_recipe and trained.recipe is not None:
            self.check_recipe(trained.recipe)
        self.check_model(trained.model)
        device = trained.device
        model = copy.deepcopy(trained.model)
        if not trainable(model):
            model.requires_grad_(True)
        meter = Meter(device=device)
        with rng.child("dropout").ambient():
            near, far = moved((retain, forget), device)
            if trained.validation is not None:
                trained = replace(trained, validation=trained.validation.to(device))
            changed = self.update(model, trained, near, far, rng=rng, meter=meter)
        for parameter, given in zip(model.parameters(), trained.model.parameters(), strict=True):
            parameter.requires_grad_(given.requires_grad)
        model.zero_grad(set_to_none=True)
        model.eval()
        broken = not_finite(model.state_dict(), trained.model.state_dict())
        if broken:
            got = f"weights that are not finite ({broken[0]})"
            raise NotFinite(name_of(self), got=got, expected="finite weights", do="lower its lr or alpha")
        kept = trained.kept if changed is None else changed
        ids = np.setdiff1d(trained.ids, forget.ids)
        return replace(trained, model=model, ids=ids, cost=meter.cost, kept=kept, budget=self.budget(kept))

    def check_model(self, model: nn.Module) -> None:
        """Raises BadInput for a model of a kind that this method, at its settings, cannot unlearn."""
        mixing = next((module for module in model.modules() if isinstance(module, (_BatchNorm, _DropoutNd))), None)
        if mixing is not None and not self.mixes:
            got, do = f"a model with {type(mixing).__name__}", "use linear, mlp or a model of your own"
            raise BadInput(name_of(self), got=got, expected="one without batch norm and dropout", do=do)

    def check_recipe(self, recipe: Recipe) -> None:
        """Raises BadInput where a model that was trained so cannot be unlearned by this method."""
        for key, value in self.needs_recipe.items():
            found = getattr(recipe, key)
            if found != value:
                got, do = f"a model trained with {key} {found}", f"pass --set recipe.{key}={value}"
                raise BadInput(name_of(self), got=got, expected=f"{key} {value}", do=do)

    @abstractmethod
    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor] | None:
        """Changes `model` (a copy of `trained.model`, all parameters trainable) in place, counting with `meter`.

        Returns the artifacts that take the place of `trained.kept`, or None where those stay as they are.
        """

    def budget(self, kept: Mapping[str, Tensor]) -> float | None:
        """The ε to which a certified method certifies the model that it has left these artifacts with; None: nothing certified."""
        return None


def train_mode(model: nn.Module, records: int, batch_size: int) -> None:
    """Training mode for passes over so many records. Where a batch may hold one record only, batch norm keeps and uses its
    running statistics: one record has no statistics of its own to normalise with."""
    model.train()
    if min(records, batch_size) < 2:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
