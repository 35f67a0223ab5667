"""Training in shards and slices, so that single records can be taken out exactly and cheaply (SISA)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Learner
from palimpsest.learn.loop import Checkpoint, Meter, train
from palimpsest.learn.recipe import Recipe
from palimpsest.models._ensemble import Ensemble
from palimpsest.models.base import Model
from palimpsest.rng import Rng, determinism
from palimpsest.task import Classification, Task
from palimpsest.types import Array, Examples
from palimpsest.workers import Workers, current

State = dict[str, Tensor]


@dataclass(frozen=True)
class Sharded(Learner):
    """S models on disjoint shards, each trained on its first slice, then on its first two, and so on (Bourtoule et al. 2021).

    A record's shard and slice follow from its id alone (from its owner where it has one, so that an owner's records lie together):
    taking records away moves no other. Every slice is trained on for 2E/(R + 1) epochs, rounded, at least one, E the recipe's
    epochs, as the paper has it, with the recipe's schedule anew; a shard's weights after each slice are kept. All randomness
    comes from one number drawn at the start and kept, and not from the records, so `sisa` gives bit for bit what training on the
    remaining records would have given. The ensemble is usually less accurate than one model: shards are small.
    """

    about = "an ensemble on shards, in slices, for exact unlearning by sisa"
    tasks: ClassVar[tuple[str, ...]] = (Classification.name,)

    shards: int = setting(5, "disjoint shards, a model each (S)", source="ours; 20 at the paper's scale", least=1)
    slices: int = setting(
        3, "slices of a shard, a checkpoint each (R)", source="ours; 50 at the paper's scale", least=1
    )
    aggregate: Literal["mean", "vote"] = setting("mean", "mean of the posteriors, or vote", source="the paper has both")

    def skeleton(self, factory: Model, task: Task, rng: Rng) -> nn.Module:
        members = [factory.build(task, rng.child("shard", shard)) for shard in range(self.shards)]
        return Ensemble(members, self.aggregate)

    def check(self, model: nn.Module, records: int, recipe: Recipe) -> None:
        if self.shards > records:
            raise BadInput("sharded.shards", got=self.shards, expected=f"at most {records}, the training records")

    def learn(
        self, model: nn.Module, task: Task, examples: Examples, recipe: Recipe, *, rng: Rng, meter: Meter,
        checkpoint: Checkpoint | None,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        root = rng.child("sharded").key
        every = dict.fromkeys(range(self.shards), 0)
        kept = self.slices_from(
            cast(Ensemble, model), task, examples, recipe, every, root=root, meter=meter, checkpoint=checkpoint
        )
        return {"root": torch.tensor(root), **kept}

    def places(self, examples: Examples) -> tuple[Array, Array]:
        """Shard and slice of each record, shapes (n,)."""
        names = (
            examples.ids if examples.owners is None else np.where(examples.owners != "", examples.owners, examples.ids)
        )
        numbers = [int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=8).digest(), "big") for name in names]
        shards = np.array([number % self.shards for number in numbers], dtype=np.int64)
        slices = np.array([number // self.shards % self.slices for number in numbers], dtype=np.int64)
        return shards, slices

    def epochs(self, recipe: Recipe) -> int:
        """Epochs on each slice: the passes over records of the whole schedule, spread over growing sets."""
        return max(1, round(2 * recipe.epochs / (self.slices + 1))) if recipe.epochs else 0

    def slices_from(
        self,
        model: Ensemble,
        task: Task,
        examples: Examples,
        recipe: Recipe,
        first: Mapping[int, int],
        *,
        root: int,
        meter: Meter,
        checkpoint: Checkpoint | None = None,
    ) -> State:
        """Trains the named shards from the named slice on, in place, and returns their weights after each slice. The current
        workers take a shard each; the memory that they need is theirs and is not measured.

        The members must hold the weights from before that slice; examples: all records that are to be trained on.
        """
        kept: State = {}
        shards, slices = self.places(examples)
        stage, device = replace(recipe, epochs=self.epochs(recipe)), next(model.parameters()).device
        crew = current() if device.type == "cpu" else Workers()
        jobs = [
            Shard(
                f"shard {shard + 1}/{self.shards}", self.slices, start, model.members[shard], task,
                examples.take(shards == shard).apart() if crew.count > 1 else examples.take(shards == shard),
                tuple(slices[shards == shard].tolist()), stage, Rng(root).child("shard", shard),
                None if checkpoint is None else replace(checkpoint, spec={**checkpoint.spec, "shard": shard}),
                torch.get_num_threads(),
            )
            for shard, start in first.items()
        ]  # fmt: skip
        for shard, done in zip(first, crew.map(train_shard, jobs, "shards"), strict=True):
            model.filled[shard] = float((shards == shard).sum() > 1)  # one record alone trains nothing
            for index, state in enumerate(done.states, first[shard]):
                kept |= {f"slice/{shard}/{index}/{key}": value for key, value in state.items()}
            if done.states:
                model.members[shard].load_state_dict(done.states[-1])
            meter.count(done.samples, done.evaluations)
            meter.before += done.before
        for job in jobs:
            job.clear()
        if not bool(model.filled.any()):
            got, expected = f"{len(examples)} records in {self.shards} shards", "a shard with two records or more"
            raise BadInput("sharded", got=got, expected=expected, do="train with fewer shards")
        return kept


@dataclass(frozen=True)
class Shard:
    """All that it takes to train one shard from one of its slices on, here or in another process.

    member: the model before that slice. examples: the shard's records, and the slice of each. rng: the shard's stream.
    """

    name: str
    slices: int
    start: int
    member: nn.Module
    task: Task
    examples: Examples
    places: tuple[int, ...]
    recipe: Recipe
    rng: Rng
    checkpoint: Checkpoint | None
    threads: int

    def at(self, index: int, **more: bool) -> Checkpoint | None:
        """Where the training of one slice leaves its state, or, with done=True, what came of it."""
        if self.checkpoint is None:
            return None
        return replace(self.checkpoint, spec={**self.checkpoint.spec, "slice": index, **more})

    def clear(self) -> None:
        """Drops what the slices left."""
        for index in range(self.start, self.slices):
            where = self.at(index, done=True)
            if where is not None:
                where.store.drop("checkpoint", where.spec)


@dataclass(frozen=True)
class Done:
    """A shard's weights after each slice and what they cost. before: seconds spent by runs that were killed."""

    states: list[State]
    samples: int
    evaluations: int
    before: float


def train_shard(job: Shard) -> Done:
    """Trains one shard slice by slice; a run that was killed goes on."""
    member, places, states = job.member, np.asarray(job.places), []
    meter = Meter(device=next(member.parameters()).device)
    with determinism(job.threads):
        for index in range(job.start, job.slices):
            part = job.examples.take(places <= index)
            end = job.at(index, done=True)
            done = None if end is None else end.store.get("checkpoint", end.spec)
            if done is not None:
                member.load_state_dict(done.tensors)
                meter.restore(done.info)
            elif len(part) > 1:
                name, stream = f"{job.name}, slice {index + 1}/{job.slices}, epoch", job.rng.child("slice", index)
                train(member, job.task, part, job.recipe, rng=stream, meter=meter, checkpoint=job.at(index), name=name)
                if end is not None:
                    end.save(member.state_dict(), meter.state(), part.ids)
            states.append({key: value.detach().cpu().clone() for key, value in member.state_dict().items()})
    return Done(states, meter.samples, meter.gradient_evaluations, meter.before)
