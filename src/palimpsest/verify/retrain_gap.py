"""How far a model is from retrained ones: in accuracy, and in its posteriors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from palimpsest.case import GROUPS, Case
from palimpsest.errors import BadInput
from palimpsest.language import Language
from palimpsest.measures.divergence import jensen_shannon
from palimpsest.measures.intervals import mean, statistic
from palimpsest.task import Classification
from palimpsest.types import Array, Examples, Measure, Scores
from palimpsest.verify.accuracy import by_group
from palimpsest.verify.base import Verifier


@dataclass(frozen=True)
class RetrainGap(Verifier):
    """Gap to the retrained controls (absolute accuracies; Jensen–Shannon divergence of posteriors), averaged over them.

    The noise floor is the same gap of one retrained model to the others: a method below it is as close as retraining is to
    itself. A small gap says nothing about single records.
    """

    about = "distance to retrained models in accuracy and posterior"
    tasks = (Classification.name, Language.name)
    needs_control = True

    def verify(self, case: Case) -> Scores:
        """Scores per record: `group`, `correct`, `control_correct` and `js` (means over controls).

        Raises BadInput without a retrained control other than the subject itself.
        """
        controls = [control for control in case.controls if control.model is not case.subject.model]
        if not controls:
            raise BadInput("retrain_gap", got="no retrained control", expected="one or more", do="raise --controls")

        def columns(group: str, part: Examples) -> dict[str, Array]:
            targets = part.targets.cpu()
            own = case.posterior(case.subject, group)
            others = [case.posterior(control, group) for control in controls]
            right = torch.stack([(other.argmax(1) == targets).double() for other in others]).mean(0)
            js = torch.stack([jensen_shannon(own, other) for other in others]).mean(0)
            correct = (own.argmax(1) == targets).double()
            return {"correct": correct.numpy(), "control_correct": right.numpy(), "js": js.numpy()}

        return by_group(case, columns)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        group = scores["group"]
        pairs = np.stack([scores["correct"], scores["control_correct"]], 1)
        judged = [pairs[group == index] for index in range(3) if (group == index).any()]
        found = [statistic("retrain_gap.accuracy", _mean_gap, *judged, together=True)]
        for index, name in enumerate(GROUPS):
            if (group == index).any():
                found.append(mean(f"retrain_gap.js_divergence_{name}", scores["js"][group == index], stream=name))
        return tuple(found)


def _mean_gap(*pairs: Array) -> Any:
    """Mean over groups, each (…, records, 2), of the absolute difference of two mean accuracies."""
    return np.mean([np.abs(pair[..., 0].mean(-1) - pair[..., 1].mean(-1)) for pair in pairs], axis=0)
