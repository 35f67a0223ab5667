"""Verification without an adversary: what the evaluator, who sees everything, measures on a case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from palimpsest.case import Case
from palimpsest.catalog import Checked
from palimpsest.task import Classification
from palimpsest.types import Measure, Scores


@dataclass(frozen=True)
class Verifier(Checked, ABC):
    """Base of all verifiers: scores per unit first, measures as pure functions of them. tasks: names of its tasks."""

    kind: ClassVar[str] = "verifiers"
    revision: ClassVar[int] = 1
    about: ClassVar[str] = ""
    needs_control: ClassVar[bool] = False  # compares with retrained models
    bias_matched: ClassVar[bool] = False  # whether it is also taken on the bias-matched control
    tasks: ClassVar[tuple[str, ...]] = (Classification.name,)

    @abstractmethod
    def verify(self, case: Case) -> Scores:
        """Scores per unit. Models keep their weights and modes."""

    @abstractmethod
    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """Measures as pure functions of scores."""
