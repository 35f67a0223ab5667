"""What may be tried of a method: the fields that declare a range, and the passes that the budget allows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from palimpsest.learn.recipe import Recipe
from palimpsest.unlearn.base import Unlearner

PASSES = ("epochs", "repair_epochs")


@dataclass(frozen=True)
class Space:
    """ranges: field → lowest and highest value, tried on a logarithmic scale (between 0.5 and 1: of the distance from 1), whole
    numbers where they are written so. epochs: most passes; 0 where the method has none. passes: the field that says how many
    there are."""

    ranges: dict[str, tuple[float, float] | tuple[int, int]]
    epochs: int
    passes: str = "epochs"

    @staticmethod
    def of(unlearner: Unlearner, recipe: Recipe, share: float) -> Space:
        fields = {entry.name: entry for entry in dataclasses.fields(unlearner)}
        ranges = {name: entry.metadata["search"] for name, entry in fields.items() if entry.metadata.get("search")}
        passes = next((name for name in PASSES if name in fields), "")
        return Space(ranges, max(1, int(share * recipe.epochs)) if passes else 0, passes or "epochs")

    @property
    def fewest(self) -> int:
        """A repair may be left out."""
        return int(self.passes == "epochs")

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def start(self, unlearner: Unlearner) -> dict[str, Any]:
        """The method's own settings of what is searched, with no more passes than the budget allows: what the first trial tries."""
        found: dict[str, Any] = {}
        for name in self.ranges:
            found[name] = getattr(unlearner, name)
        if self.epochs:
            own = getattr(unlearner, self.passes)
            found[self.passes] = self.epochs if own is None else min(int(own), self.epochs)
        return found

    def suggest(self, trial: Any) -> dict[str, Any]:
        """One more setting, by an Optuna trial."""
        found: dict[str, Any] = {}
        for name, (low, high) in self.ranges.items():
            if isinstance(low, int):
                found[name] = trial.suggest_int(name, low, high, log=True)
            elif _near_one(low, high):
                found[name] = 1 - trial.suggest_float(name, 1 - high, 1 - low, log=True)
            else:
                found[name] = trial.suggest_float(name, low, high, log=True)
        if self.epochs:
            found[self.passes] = trial.suggest_int(self.passes, self.fewest, self.epochs)
        return found


def _near_one(low: float, high: float) -> bool:
    """Whether what counts is how far from 1 a value is, as of a weight whose defaults are 0.95 and 0.9999."""
    return low >= 0.5 and high < 1
