"""The lifecycle of an attack: prepare (P1), request (P2), observe (P3); the evaluator scores, not the adversary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

from torch import Tensor, nn

from palimpsest.case import Case
from palimpsest.catalog import Checked
from palimpsest.errors import ContractError
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import ThreatModel, View
from palimpsest.types import Measure, Scores


@dataclass(frozen=True)
class Guess:
    """What the adversary came up with: named tensors, first axis the record; `info` for what is no tensor.

    queries: records asked of black boxes. gradients: forward-backward passes executed, one per record and step.
    """

    tensors: Mapping[str, Tensor]
    info: Mapping[str, Any] = field(default_factory=dict)
    queries: int = 0
    gradients: int = 0


Keep = Callable[[str, Callable[[], Guess]], Guess]


def made_here(name: str, make: Callable[[], Guess]) -> Guess:
    """Keeps nothing."""
    return make()


@dataclass(frozen=True)
class Attack(Checked, ABC):
    """Base of all attacks. `run` owns the contract; `observe` holds the adversary, `score` the evaluator.

    threat: the declared threat model. paper: where it comes from. primary: the measure (name) that verdicts go by, higher meaning
    more remembered. tasks: names of the tasks that it is for. untrained: whether a model with fresh weights is attacked too, as
    inputs may bring forth much from any. compares: whether it reads off two models what was deleted between them. Then primary
    says how much a deletion gives away, verdicts on memory do not go by it, and its guess depends on nothing but what it is shown.
    chance: what guessing reaches there; none: one class of all. reads_steps: whether one plain step on the deleted records is what
    it reads. makes_ready: see `ready`.
    """

    kind: ClassVar[str] = "attacks"
    revision: ClassVar[int] = 1
    threat: ClassVar[ThreatModel]
    paper: ClassVar[str] = ""
    about: ClassVar[str] = ""
    primary: ClassVar[str] = ""
    bias_matched: ClassVar[bool] = False  # whether class-wise the bias-matched control is needed to read it
    untrained: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    makes_ready: ClassVar[bool] = False
    chance: ClassVar[float | None] = 0.5
    reads_steps: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = (Classification.name,)

    def __init_subclass__(cls, *, partial: bool = False, **kwargs: Any) -> None:
        """partial: whether it is a base of attacks rather than one."""
        super().__init_subclass__(**kwargs)
        if not partial and not hasattr(cls, "threat"):
            raise ContractError(f"{cls.__name__}: got no `threat`, expected a ThreatModel")

    @final
    def run(self, case: Case, *, rng: Rng, keep: Keep = made_here) -> tuple[Guess, Scores]:
        """The adversary observes its view and guesses; the evaluator scores. Models keep weights, modes and requires_grad.

        keep: gives back a guess that was kept under a name, or makes and keeps it: "ready" for what `ready` gives, and of an
        attack that compares, "guess" for what `observe` gives.
        """
        models = [trained.model for trained in (case.original, case.subject, case.seen, *case.controls) if trained]
        before = [_state(model) for model in models]

        def look() -> Guess:
            early = View(replace(self.threat, models="before", knows=()), case)
            made = keep("ready", lambda: self.ready(early, rng=rng.child("ready"))) if self.makes_ready else None
            return self.observe(View(self.threat, case, made), rng=rng)

        guess = keep("guess", look) if self.compares else look()
        scores = self.score(guess, case)
        if [_state(model) for model in models] != before:
            raise ContractError(f"{type(self).__name__}: got a model that it changed, expected it as it was")
        return guess, scores

    def ready(self, view: View, *, rng: Rng) -> Guess:
        """What the adversary makes of the original alone, before anything is unlearned (`makes_ready`). The view shows no other
        model; `observe` finds the result in `view.made`. It is made once for all that is unlearned from this original."""
        raise ContractError(f"{type(self).__name__}: got `makes_ready` without `ready`, expected both")

    @abstractmethod
    def observe(self, view: View, *, rng: Rng) -> Guess:
        """P3: the adversary reads its view."""

    @abstractmethod
    def score(self, guess: Guess, case: Case) -> Scores:
        """The evaluator compares the guess with the truth; scores per unit."""

    @abstractmethod
    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """Measures as pure functions of scores; names carry the module's name as prefix."""


def _state(model: nn.Module) -> tuple[Any, ...]:
    modes = tuple(module.training for module in model.modules())
    parameters = tuple((parameter.requires_grad, parameter._version) for parameter in model.parameters())
    return modes, parameters, tuple(buffer._version for buffer in model.buffers())
