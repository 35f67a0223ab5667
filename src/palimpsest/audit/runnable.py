"""What of a plan can be carried out: the rest is refused before anything is trained, or skipped where the plan allows that."""

from __future__ import annotations

from dataclasses import replace

from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import homes, labels
from palimpsest.defend.base import Guarded
from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.task import Task, check_task
from palimpsest.types import Split


def runnable(plan: Plan, split: Split, task: Task) -> Plan:
    """The plan with a reason for each optional method that is not for this model, or whose own learner is not for it or for these
    records.

    Raises BadInput where that holds for a method that was asked for by name, or for the audit's own learner, for a model that
    cannot be built, and for an attack, a verifier or a defence of another task.
    """
    skipped, rng = dict(plan.skipped), Rng(plan.seeds[0])
    check_tasks(plan, task)
    _check_guards(plan)
    single = plan.model.build(task, rng)
    for release in plan.releases:
        release.part(task)
    for home in homes(plan):
        try:
            check_task(home.learner, task.name)
            home.learner.check(single, len(split.train), home.recipe)
            model = home.learner.start(plan.model, task, rng, None if split.public is None else single.state_dict())
        except BadInput as error:
            if not home.name or not plan.optional.issuperset(home.methods):
                raise
            skipped.update(dict.fromkeys(home.methods, str(error)))
            continue
        for label, unlearner in home.methods.items():
            try:
                check_task(unlearner, task.name)
                unlearner.check_model(model)
            except BadInput as error:
                if label not in plan.optional:
                    raise
                skipped[label] = str(error)
    return replace(plan, skipped=skipped)


def check_tasks(plan: Plan, task: Task) -> None:
    """Raises BadInput for an attack, a verifier or a defence of another task than the model's."""
    for one in (*plan.attacks, *plan.verifiers, *plan.defences):
        check_task(one, task.name)


def _check_guards(plan: Plan) -> None:
    """Raises BadInput for a guard that fits none of the plan's methods, with what it says of the first."""
    for guard in plan.guards:
        if not any(isinstance(one, Guarded) and one.guard == guard for one in labels(plan).values()):
            guard.check(plan.unlearners[0])
