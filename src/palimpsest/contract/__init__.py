"""What every member of a kind must pass, whatever its idea. `palimpsest check my_module:MyClass` runs it on digits.

A check raises ContractError, or whatever the member itself raises; it says nothing where all is well. Passing them
does not show that a method is good at what it does, only that its numbers can be compared with those of the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from palimpsest import catalog
from palimpsest.contract.bench import Bench, Check
from palimpsest.contract.judges import JUDGES
from palimpsest.contract.judges import LIMITS as OF_JUDGES
from palimpsest.contract.keepers import KEEPERS
from palimpsest.contract.keepers import LIMITS as OF_KEEPERS
from palimpsest.contract.makers import LIMITS as OF_MAKERS
from palimpsest.contract.makers import MAKERS
from palimpsest.errors import BadInput, UnknownName
from palimpsest.language import Language
from palimpsest.learn.plain import Plain
from palimpsest.models.base import Model, factory
from palimpsest.task import Classification

CONTRACTS: Mapping[str, Mapping[str, Check]] = {**MAKERS, **JUDGES, **KEEPERS}


@dataclass(frozen=True)
class Outcome:
    """A check's name and, where it failed, why."""

    check: str
    failure: str = ""

    @property
    def passed(self) -> bool:
        return not self.failure


def checks(kind: str) -> Mapping[str, Check]:
    """What it is checked for → the check. Raises BadInput for a kind that has no contract yet."""
    if kind not in CONTRACTS:
        raise BadInput("check", got=f"a class of kind {kind!r}", expected="one of " + ", ".join(CONTRACTS))
    return CONTRACTS[kind]


def skipped(kind: str, subject: Any) -> Mapping[str, str]:
    """Checks that have nothing to say of this member → why. They are not run, and so do not pass."""
    limits = {**OF_JUDGES, **OF_MAKERS, **OF_KEEPERS}
    reasons = {name: limits[name](subject) for name in checks(kind) if name in limits}
    return {name: reason for name, reason in reasons.items() if reason}


def member(target: str, settings: Mapping[str, Any] | None = None) -> tuple[str, Any]:
    """Kind and instance behind a catalog name, `my_module:MyClass`, or a `my_module:make` that returns a torch.nn.Module."""
    if ":" not in target:
        kinds = {name: kind for kind in CONTRACTS for name in catalog.members(kind)}
        if target not in kinds:
            raise UnknownName("check", got=target, known=kinds, do="or my_module:MyClass")
        return kinds[target], catalog.make(kinds[target], target, settings)
    found = catalog.load(target)
    declared = getattr(found, "kind", None)
    if inspect.isclass(found) and declared in catalog.FOLDERS:
        return declared, catalog.make(declared, target, settings)
    if not callable(found):
        expected = "a class derived from a base of this package, or a function that returns a torch.nn.Module"
        raise BadInput(target, got=type(found).__name__, expected=expected)
    return "models", factory(target, dict(settings or {}))


def run(kind: str, subject: Any, bench: Bench | None = None) -> Iterator[Outcome]:
    """Every check that applies to this member, in order; a failing one does not stop the next. `skipped` says which do not."""
    bench = bench or _bench(subject)
    left_out = skipped(kind, subject)
    for name, check in checks(kind).items():
        if name in left_out:
            continue
        try:
            check(subject, bench)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises is its failure, and is shown
            yield Outcome(name, f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
        else:
            yield Outcome(name)


def _bench(subject: Any) -> Bench:
    """A bench whose task and model are as this member needs them."""
    if isinstance(subject, Model):
        reads = subject.solves == Language.name
        return replace(Bench.of((subject.solves,), Plain(), {}), model=subject) if reads else Bench(model=subject)
    needs = getattr(subject, "needs", "")
    tasks = getattr(subject, "tasks", (Classification.name,))
    learner = catalog.make("learners", needs) if needs else Plain()
    return Bench.of(tasks, learner, getattr(subject, "needs_recipe", {}), mixes=getattr(subject, "mixes", True))
