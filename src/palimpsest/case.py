"""What the evaluator knows of one situation: the truth that no attack is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Array, Examples, ForgetRequest, Split

TARGETS = ("original", "retrained", "unlearned", "placebo", "bias-matched", "clean", "honest")


@dataclass(frozen=True)
class Case:
    """One subject before and after unlearning, with its controls, of one seed.

    subject: the model under test; `target` says what it stands for ("unlearned", or a control's name).
    requests: all requests granted so far; their ids are stored, never derived again.
    controls: models retrained without the forgotten records, on the same split with other seeds.
    """

    split: Split
    requests: tuple[ForgetRequest, ...]
    original: Trained
    subject: Trained
    target: str = "unlearned"
    controls: tuple[Trained, ...] = ()
    seed: int = 0
    unlearner: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise BadInput("case target", got=self.target, expected=", ".join(TARGETS))

    @property
    def task(self) -> Classification:
        return self.original.task

    @cached_property
    def forgotten(self) -> set[str]:
        return {str(name) for request in self.requests for name in request.ids}

    @cached_property
    def forget(self) -> Examples:
        """All records forgotten so far; in a placebo's case, records that no model was trained on."""
        placebo: Examples | None = self.extra.get("forget")
        return self.split.train.only(self.forgotten) if placebo is None else placebo

    @cached_property
    def retain(self) -> Examples:
        return self.task.remove(self.split.train, self.forgotten)

    @cached_property
    def forgotten_classes(self) -> tuple[int, ...]:
        """Classes with no record left in the retain set: forgetting was class-wise for these."""
        return tuple(int(c) for c in np.setdiff1d(self.forget.targets.cpu().numpy(), self.retain.targets.cpu().numpy()))

    @cached_property
    def heldout(self) -> Examples:
        """Test and validation records, never trained on, of the classes that the forget set has."""
        return self._held_of(np.unique(self.forget.targets.cpu().numpy()))

    def _held_of(self, classes: Array) -> Examples:
        test = self.split.test
        return test.take(np.isin(test.targets.cpu().numpy(), classes))

    @cached_property
    def test(self) -> Examples:
        """Test records of the classes that are still to be known (without the classes forgotten whole)."""
        test = self.split.test
        return test.take(~np.isin(test.targets.cpu().numpy(), self.forgotten_classes))

    def of(self, subject: Trained, target: str, **extra: Any) -> Case:
        """The same situation with another model in the subject's place: a control."""
        return replace(self, subject=subject, target=target, extra={**self.extra, **extra})

    @property
    def rng(self) -> Rng:
        return Rng(self.seed)
