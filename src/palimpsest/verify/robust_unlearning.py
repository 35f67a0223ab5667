"""The two expectations that define unlearning in the UMA paper (Eq. 1 and 2), measured."""

from __future__ import annotations

from dataclasses import dataclass

from palimpsest.case import GROUPS, Case
from palimpsest.measures.divergence import euclidean
from palimpsest.measures.intervals import mean
from palimpsest.types import Array, Examples, Measure, Scores
from palimpsest.verify.accuracy import by_group
from palimpsest.verify.base import Verifier


@dataclass(frozen=True)
class RobustUnlearning(Verifier):
    """E‖f_u(x) − f(x)‖₂ over posteriors: ε₁ on the forget set (should be large), ε₂ on the retain set (should be small).

    The paper leaves the thresholds to the task, so the distances are reported, not judged. The condition of its
    Definition 4, that no perturbation brings a record's answer back, is the measure `uma.minimum_distance`.
    """

    about = "distance from the original on forget and retain records (UMA paper, Eq. 1 and 2)"

    def verify(self, case: Case) -> Scores:
        """Scores per record: `group` and `distance` between the subject's and the original's posterior, in [0, √2]."""

        def columns(group: str, part: Examples) -> dict[str, Array]:
            after, before = (case.posterior(model, group) for model in (case.subject, case.original))
            return {"distance": euclidean(after, before).numpy()}

        return by_group(case, columns)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        group = scores["group"]
        return tuple(
            mean(f"robust_unlearning.{name}_distance", scores["distance"][group == index], stream=name)
            for index, name in enumerate(GROUPS[:2])
        )
