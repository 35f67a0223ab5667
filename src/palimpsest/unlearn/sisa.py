"""SISA: train again only the shards that held the forgotten records, from the last slice that did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.sharded import Sharded
from palimpsest.models._ensemble import Ensemble
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples
from palimpsest.unlearn.base import Unlearner


@dataclass(frozen=True)
class Sisa(Unlearner):
    """Each shard that held forgotten records goes back to the weights from before the first slice with one of them, and is
    trained on from there without them (Bourtoule et al. 2021).

    Exact: bit for bit what the learner `sharded` gives, with the same random numbers, on the remaining records. On average one
    record costs (1/S)(2/3 + 1/(3R)) of training the ensemble. It does not follow that the two releases together tell nothing of
    the record.
    """

    guarantee = "exact"
    needs = "sharded"
    tasks = (Classification.name,)
    aliases = ("SISA",)
    about = "train again only the shards that held the forgotten records; exact"
    paper = "Bourtoule et al. 2021"
    spends = "(1/S)(2/3 + 1/(3R)) of training the ensemble for one record, on average"
    use = "when requests are expected before training begins: exact, and cheap while they are few"

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor]:
        learner, recipe = trained.learner, trained.recipe
        if not isinstance(learner, Sharded) or not isinstance(model, Ensemble) or recipe is None:
            raise BadInput(
                "sisa", got="a model without shards", expected="one trained by sharded", do="pass --learner sharded"
            )
        first = self.touched(learner, forget)
        for shard, index in first.items():
            member = f"members.{shard}."
            before = (
                {key[len(member) :]: value for key, value in trained.initial().items() if key.startswith(member)}
                if index == 0
                else _of_slice(trained.kept, shard, index - 1)
            )
            model.members[shard].load_state_dict(before)
        root = int(trained.kept["root"])
        new = learner.slices_from(
            model, trained.task, retain, recipe, first, root=root, meter=meter, checkpoint=trained.checkpoint
        )
        return {**trained.kept, **new}

    @staticmethod
    def touched(learner: Sharded, forget: Examples) -> dict[int, int]:
        """For each shard with a forgotten record its first slice with one."""
        shards, slices = learner.places(forget)
        return {int(shard): int(slices[shards == shard].min()) for shard in sorted(set(shards.tolist()))}


def _of_slice(kept: Mapping[str, Tensor], shard: int, index: int) -> dict[str, Tensor]:
    head = f"slice/{shard}/{index}/"
    return {key[len(head) :]: value for key, value in kept.items() if key.startswith(head)}
