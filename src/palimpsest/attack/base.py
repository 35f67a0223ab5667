"""The lifecycle of an attack: prepare (P1), observe (P3); the evaluator scores, not the adversary.

Whoever prepares hands in records before training and asks for exactly those to be forgotten, which is the honest request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

from torch import Tensor, nn

from palimpsest.case import Case
from palimpsest.catalog import Checked
from palimpsest.errors import BadInput, ContractError
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import Submission, ThreatModel, TrainingView, View
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
    """Base of all attacks. `run` owns the contract; `prepare` and `observe` hold the adversary, `score` the evaluator. An attack
    has `prepare` if and only if it acts in P1, and `observe` in P3.

    threat: the declared threat model. paper: where it comes from. primary: the measure (name) that verdicts go by, higher meaning
    more remembered. tasks: names of the tasks that it is for. untrained: whether a model with fresh weights is attacked too, as
    inputs may bring forth much from any. compares: whether it reads off two models what was deleted between them. Then primary
    says how much a deletion gives away, verdicts on memory do not go by it, and its guess depends on nothing but what it is shown.
    chance: what guessing reaches there; none: one class of all. reads_steps: whether one plain step on the deleted records is what
    it reads. makes_ready: see `ready`. owns: the selection of records that are its own where its contract is checked.
    needs_many: whether its effect shows over more records than a check has.
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
    owns: ClassVar[str] = "random=0.5"
    needs_many: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = (Classification.name,)

    def __init_subclass__(cls, *, partial: bool = False, **kwargs: Any) -> None:
        """partial: whether it is a base of attacks rather than one."""
        super().__init_subclass__(**kwargs)
        if partial:
            return
        if not hasattr(cls, "threat"):
            raise ContractError(f"{cls.__name__}: got no `threat`, expected a ThreatModel")
        for phase, name in (("P1", "prepare"), ("P3", "observe")):
            acts = getattr(cls, name) is not getattr(Attack, name)
            if acts != (phase in cls.threat.phases):
                got = f"{name!r} and phases {', '.join(cls.threat.phases)}" if acts else f"{phase} without {name!r}"
                raise ContractError(f"{cls.__name__}: got {got}, expected {phase} if and only if it has {name!r}")

    @property
    def prepares(self) -> bool:
        """Whether it hands in records before training."""
        return "P1" in self.threat.phases

    @final
    def run(self, case: Case, *, rng: Rng, keep: Keep = made_here) -> tuple[Guess, Scores]:
        """The adversary observes its view and guesses; the evaluator scores. Models keep weights, modes and requires_grad.

        keep: gives back a guess that was kept under a name, or makes and keeps it: "ready" for what `ready` gives, and of an
        attack that compares, "guess" for what `observe` gives.
        """
        models = [trained.model for trained in (case.original, case.subject, case.seen, *case.controls) if trained]
        before = [_state(model) for model in models]

        if self.prepares and case.submission is None:
            got, expected = "models trained without its records", "ones trained with them"
            raise BadInput(type(self).__name__, got=got, expected=expected, do="let the audit train them")

        def look() -> Guess:
            if "P3" not in self.threat.phases:
                return Guess({})
            early = View(replace(self.threat, models="before", knows=()), case)
            made = keep("ready", lambda: self.ready(early, rng=rng.child("ready"))) if self.makes_ready else None
            return self.observe(View(self.threat, case, case.submission if self.prepares else made), rng=rng)

        guess = keep("guess", look) if self.compares else look()
        scores = self.score(guess, case)
        if [_state(model) for model in models] != before:
            raise ContractError(f"{type(self).__name__}: got a model that it changed, expected it as it was")
        return guess, scores

    def ready(self, view: View, *, rng: Rng) -> Guess:
        """What the adversary makes of the original alone, before anything is unlearned (`makes_ready`). The view shows no other
        model; `observe` finds the result in `view.made`. It is made once for all that is unlearned from this original."""
        raise ContractError(f"{type(self).__name__}: got `makes_ready` without `ready`, expected both")

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        """P1: what the adversary hands in of its own records, before anything is trained. Of an attack with a field `epsilon` no
        value may differ by more than that share of its range, which is checked."""
        raise ContractError(f"{type(self).__name__}: got phase P1 without `prepare`, expected it")

    def observe(self, view: View, *, rng: Rng) -> Guess:
        """P3: the adversary reads its view."""
        raise ContractError(f"{type(self).__name__}: got phase P3 without `observe`, expected it")

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
