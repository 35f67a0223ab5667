"""What of a plan can be carried out: the rest is refused before anything is trained, or skipped where the plan allows that."""

from __future__ import annotations

from dataclasses import replace

from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import homes
from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Split


def runnable(plan: Plan, split: Split, task: Classification) -> Plan:
    """The plan with a reason for each optional method that is not for this model, or whose learner is not for it or the records.

    Raises BadInput where that holds for a method that was asked for by name.
    """
    skipped = dict(plan.skipped)
    for home in homes(plan):
        for label, unlearner in home.methods.items():
            try:
                model = home.learner.start(plan.model, task, Rng(plan.seeds[0]))
                home.learner.check(model, len(split.train), home.recipe)
                unlearner.check_model(model)
            except BadInput as error:
                if label not in plan.optional:
                    raise
                skipped[label] = str(error)
    return replace(plan, skipped=skipped)
