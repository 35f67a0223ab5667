"""What an audit is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palimpsest.attack.base import Attack
from palimpsest.audit.policy import Policy
from palimpsest.audit.yardstick import Yardstick, yardstick
from palimpsest.catalog import name_of
from palimpsest.data.base import Dataset
from palimpsest.defend.base import Defence, Guard, ModelRelease
from palimpsest.errors import BadInput
from palimpsest.learn.base import Learner
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.task import Classification
from palimpsest.unlearn.base import Unlearner
from palimpsest.verify.accuracy import Accuracy
from palimpsest.verify.base import Verifier
from palimpsest.verify.memorisation import Memorisation
from palimpsest.verify.reconstruction import Reconstruction
from palimpsest.verify.relearn_time import RelearnTime
from palimpsest.verify.retrain_gap import RetrainGap
from palimpsest.verify.robust_unlearning import RobustUnlearning


def every_verifier(task: str = Classification.name) -> tuple[Verifier, ...]:
    """All that are for this task."""
    every = (Accuracy(), Reconstruction(), RetrainGap(), RobustUnlearning(), RelearnTime(), Memorisation())
    return tuple(verifier for verifier in every if task in verifier.tasks)


@dataclass(frozen=True)
class Imported:
    """Weights that somebody else trained: of the original, of models already unlearned (by name), and of a retrained one.

    train_ids: the records that the original was trained on; None: all training records of the data set.
    retrain: whether a missing retrained control is to be trained with the plan's recipe.
    """

    original: Path
    unlearned: Mapping[str, Path]
    retrained: Path | None = None
    train_ids: tuple[str, ...] | None = None
    retrain: bool = False


@dataclass(frozen=True)
class Plan:
    """Data, model, what to forget and how, what to attack with, over which seeds.

    forget: selections, in the order of the requests. separate: each request is of the original alone, as if no other had been made,
    and what they give is taken together; else they come one after the other. detected: share of each request's records that are
    found to be poisoned, and asked to be forgotten, of what an attack handed in (corrective unlearning). defences: every method is
    tried with each of them too, where it fits. learners: those that single methods need, by name, beside the audit's own.
    optional: labels of methods that are skipped where the case is not theirs. skipped: label → why. controls: retrained models per
    seed and learner. threads: None leaves torch's own number. search: label of a method → field → values, of which that with the
    least error on validation records is taken. tuned: how the methods' settings were found (`tuning.Tuned.told` by
    method), for the record.
    """

    data: Dataset
    model: Model
    forget: tuple[str, ...]
    unlearners: tuple[Unlearner, ...]
    attacks: tuple[Attack, ...]
    separate: bool = False
    detected: float = 1.0
    verifiers: tuple[Verifier, ...] = field(default_factory=every_verifier)
    defences: tuple[Defence, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    learner: Learner = field(default_factory=Plain)
    learners: Mapping[str, Learner] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    skipped: Mapping[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    controls: int = 2
    policy: Policy = field(default_factory=Policy)
    imported: Imported | None = None
    device: str = "cpu"
    threads: int | None = None
    search: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    scale: str = "custom"
    tuned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def poisoner(self) -> Attack | None:
        """The attack that hands in records before training."""
        return next((attack for attack in self.attacks if attack.prepares), None)

    @property
    def yardstick(self) -> Yardstick:
        return yardstick(self.model.solves)

    @property
    def guards(self) -> tuple[Guard, ...]:
        return tuple(defence for defence in self.defences if isinstance(defence, Guard))

    @property
    def releases(self) -> tuple[ModelRelease, ...]:
        return tuple(defence for defence in self.defences if isinstance(defence, ModelRelease))

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise BadInput("seeds", got=self.seeds, expected="one or more different whole numbers")
        if not self.forget:
            raise BadInput("--forget", got="nothing", expected="what to forget, such as class=0")
        if self.imported is None and self.controls < 1:
            raise BadInput("--controls", got=self.controls, expected="at least 1 retrained model per seed")
        if not self.attacks and not self.verifiers:
            raise BadInput("--attack", got="no attack and no verifier", expected="at least one")
        if self.imported is None and not self.unlearners:
            raise BadInput("--unlearn", got="nothing", expected="at least one unlearning method")
        preparing = [name_of(attack) for attack in self.attacks if attack.prepares]
        if len(preparing) > 1:
            got, do = ", ".join(preparing), "audit each on its own"
            raise BadInput("--attack", got=got, expected="one at most that hands in records for training", do=do)
        if not 0 < self.detected <= 1:
            raise BadInput("--detected", got=self.detected, expected="a share above 0 and at most 1")
        if self.detected < 1 and not preparing:
            got, do = f"{self.detected:g} and no attack that hands in records", "name one, such as --attack label_flip"
            raise BadInput("--detected", got=got, expected="poison that is found or not", do=do)
        if preparing and self.imported:
            got = f"{preparing[0]}, which hands in records for training, and weights that are trained already"
            raise BadInput("--attack", got=got, expected="a model to train; leave out --original")
        if preparing and self.separate:
            got = f"--separate and {preparing[0]}, whose records are all in one training"
            raise BadInput("--attack", got=got, expected="requests that come one after the other")
        if self.imported and len(self.forget) > 1:
            raise BadInput("--forget", got=f"{len(self.forget)} requests", expected="one for imported weights")
