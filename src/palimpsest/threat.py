"""A threat model is a type: an attack gets a view that holds what its declaration names, and nothing else.

Codes are the survey's: roles R1 data contributor, R2 requesting user, R3 accessible user; goals G1 untargeted,
G2 targeted, G3 privacy leakage, G4 others; knowledge K1 white box, K2 grey box, K3 black box; phases P1 training, P2 unlearning,
P3 after unlearning. Two roles are beyond the survey: `provider` (holds the weights; the inversion paper's server) and
`auditor` (the UMA paper's validator).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from palimpsest.case import Case
from palimpsest.errors import BeyondView, ContractError
from palimpsest.learn.base import Trained
from palimpsest.rng import Rng
from palimpsest.task import Task, evaluating
from palimpsest.types import Batch, Examples, Ids, Split

ROLES = {
    "R1": "data contributor",
    "R2": "requesting user",
    "R3": "accessible user",
    "provider": "provider",
    "auditor": "auditor",
}
GOALS = {"G1": "untargeted", "G2": "targeted", "G3": "privacy leakage", "G4": "others"}
KNOWLEDGE = {"K1": "white-box", "K2": "grey-box", "K3": "black-box"}
PHASES = {"P1": "training", "P2": "unlearning", "P3": "post-unlearning"}

KNOWABLE: Mapping[str, Callable[[Case], Any]] = {
    "forget_set": lambda case: case.forget,
    "candidates": lambda case: case.candidates,
    "members": lambda case: case.retain,
    "nonmembers": lambda case: case.nonmembers,
    "classes": lambda case: case.split.classes,
    "recipe": lambda case: case.original.recipe,
    "initial_weights": lambda case: case.original.initial(),
    "architecture": lambda case: case.original.factory,
    "counts": lambda case: (len(case.forgotten), len(case.retain)),
    "labels": lambda case: case.split.train.only(case.forgotten).targets,
    "class_count": lambda case: len(torch.unique(case.split.train.only(case.forgotten).targets)),
}
"""What an attack may declare to know beside the models, and where the evaluator takes it from."""

KNOWABLE_BEFORE: Mapping[str, Callable[[Ground], Any]] = {
    "others": lambda ground: ground.split.train.without(ground.own.ids),
    "unseen": lambda ground: ground.split.test,
    "classes": lambda ground: ground.split.classes,
    "recipe": lambda ground: ground.recipe,
    "architecture": lambda ground: ground.factory,
}
"""The same before training (P1): records of others, records that nobody trains on, and how the model will come to be."""

INSIDE = ("recipe", "initial_weights", "architecture")
"""Knowledge of the training that no black box gives away."""


@dataclass(frozen=True)
class ThreatModel:
    """Who attacks, to what end, when, seeing what.

    sees: what the model shows: labels, posteriors, or its weights. models: before unlearning, after, or both.
    knows: further knowledge by name (`KNOWABLE` after training, `KNOWABLE_BEFORE` before it).
    """

    roles: tuple[str, ...]
    goals: tuple[str, ...]
    knowledge: str
    phases: tuple[str, ...]
    sees: Literal["labels", "posterior", "weights"]
    models: Literal["before", "after", "both"]
    knows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for values, known in (
            (self.roles, ROLES),
            (self.goals, GOALS),
            ((self.knowledge,), KNOWLEDGE),
            (self.phases, PHASES),
        ):
            for value in values:
                if value not in known:
                    raise ContractError(f"threat model: got code {value!r}, expected one of {', '.join(known)}")
        for value in self.knows:
            if value not in {**KNOWABLE, **KNOWABLE_BEFORE}:
                names = ", ".join({**KNOWABLE, **KNOWABLE_BEFORE})
                raise ContractError(f"threat model: got knowledge {value!r}, expected one of {names}")
        inside = [value for value in self.knows if value in INSIDE]
        if (self.knowledge == "K1") != (self.sees == "weights"):
            got = f"{self.knowledge} ({KNOWLEDGE[self.knowledge]}) that sees {self.sees}"
            raise ContractError(f"threat model: got {got}, expected K1 for an attack on weights, and for no other")
        if self.knowledge == "K3" and inside:
            raise ContractError(f"threat model: got a black box (K3) that knows {inside[0]}, expected K2")


@dataclass(frozen=True)
class Ground:
    """What the evaluator knows before anything is trained. own: the adversary's records, which will be asked to be forgotten. fit:
    trains a model as the victim will be trained, or for a share of its epochs, on given records, with a stream of randomness of the
    adversary's."""

    split: Split
    own: Examples
    task: Task
    recipe: Any = None
    factory: Any = None
    fit: Callable[[Examples, Rng, float], Trained] | None = None


class TrainingView:
    """All that an adversary is shown before training (P1): its own records, and what it declared to know."""

    __slots__ = ("_fit", "_known", "own", "task", "threat")

    def __init__(self, threat: ThreatModel, ground: Ground) -> None:
        self.threat, self.task, self.own = threat, ground.task, ground.own
        self._known = {name: KNOWABLE_BEFORE[name](ground) for name in threat.knows if name in KNOWABLE_BEFORE}
        self._fit = ground.fit if {"recipe", "architecture"} <= set(threat.knows) else None

    def know(self, name: str) -> Any:
        """Declared knowledge; raises BeyondView for anything else."""
        return _known(self.threat, self._known, name)

    def fit(self, examples: Examples, rng: Rng, share: float = 1.0) -> nn.Module:
        """A model of the adversary's own, trained as the victim will be, for a share of the epochs, in evaluation mode. Raises
        BeyondView where it does not know how that is."""
        if self._fit is None:
            raise BeyondView("fit: got a threat model that does not declare recipe and architecture, expected both")
        return self._fit(examples, rng, share).model.eval()


@dataclass(frozen=True)
class Submission:
    """What an adversary hands in for training: records of its own, altered, under their names.

    ids: (m,). inputs: name → (m, …), in the model's range. targets: (m,). kept: what it keeps to read models by later. gradients:
    forward-backward passes that it took, surrogates' training apart.
    """

    ids: Ids
    inputs: Mapping[str, Tensor]
    targets: Tensor
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: int = 0


def _known(threat: ThreatModel, known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        declared = ", ".join(threat.knows) or "nothing"
        raise BeyondView(
            f"knowledge {name!r}: got a threat model that declares {declared}, expected it to declare this too"
        )
    return known[name]


class LabelsView:
    """A model that answers with labels. Queries are counted, one per record."""

    __slots__ = ("_answer", "queries")

    def __init__(self, trained: Trained) -> None:
        self.queries = 0
        model, task = trained.model, trained.task

        def answer(batch: Batch) -> Tensor:
            with evaluating(model):
                return task.posterior(model, batch)

        self._answer: Callable[[Batch], Tensor] = answer

    def labels(self, batch: Batch) -> Tensor:
        """Predicted classes, shape (n,)."""
        self.queries += len(batch)
        return self._answer(batch).argmax(1)

    def posterior(self, batch: Batch) -> Tensor:
        raise BeyondView(
            "posterior: got a view of labels, expected a threat model that sees posteriors; declare `sees`"
        )

    def weights(self) -> nn.Module:
        raise BeyondView("weights: got a black box, expected a threat model that sees weights; declare `sees`")


class PosteriorView(LabelsView):
    """A model that answers with posteriors."""

    __slots__ = ()

    def posterior(self, batch: Batch) -> Tensor:
        """Class probabilities, shape (n, k), without gradient."""
        self.queries += len(batch)
        return self._answer(batch)


class WeightsView(PosteriorView):
    """A model in hand. `weights` returns a copy, so an attack cannot change the subject."""

    __slots__ = ("_copy",)

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)

        def duplicate() -> nn.Module:
            model = copy.deepcopy(trained.model).eval()
            return model.requires_grad_(False)

        self._copy: Callable[[], nn.Module] = duplicate

    def weights(self) -> nn.Module:
        """A frozen copy of the model in evaluation mode; batch statistics and gradients of parameters are off."""
        return self._copy()


_ACCESS = {"labels": LabelsView, "posterior": PosteriorView, "weights": WeightsView}


class View:
    """All that an attack after unlearning is shown: models at its access level, and what it declared to know.

    made: what the adversary made of the original before, where it makes something ready; or what it handed in for training.
    """

    __slots__ = ("_known", "_models", "made", "task", "threat")

    def __init__(self, threat: ThreatModel, case: Case, made: Any = None) -> None:
        access = _ACCESS[threat.sees]
        self.threat = threat
        self.made = made
        self.task: Task = case.task
        self._models: dict[str, LabelsView] = {}
        if threat.models in ("before", "both"):
            self._models["before"] = access(case.seen_before or case.original)
        if threat.models in ("after", "both"):
            self._models["after"] = access(case.seen or case.subject)
        self._known = {name: KNOWABLE[name](case) for name in threat.knows if name in KNOWABLE}

    def _model(self, when: str) -> Any:
        if when not in self._models:
            raise BeyondView(
                f"model {when} unlearning: got a view of {self.threat.models}, expected one that declares it"
            )
        return self._models[when]

    @property
    def before(self) -> Any:
        """The original model at this threat model's access level."""
        return self._model("before")

    @property
    def after(self) -> Any:
        """The model after unlearning at this threat model's access level."""
        return self._model("after")

    def know(self, name: str) -> Any:
        """Declared knowledge; raises BeyondView for anything else."""
        return _known(self.threat, self._known, name)

    @property
    def queries(self) -> int:
        """Records asked of all models so far."""
        return sum(model.queries for model in self._models.values())


@torch.no_grad()
def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models have bit-identical parameters and buffers."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key].cpu(), b[key].cpu()) for key in a)
