"""A situation on digits that the contract tests of attacks and verifiers share: forget class 0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from palimpsest.case import Case
from palimpsest.contract.bench import Bench
from palimpsest.data.digits import Digits
from palimpsest.forget.selection import select
from palimpsest.language import Language
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.reconstruction import Reconstruction
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Examples, Split


@dataclass(frozen=True)
class Situation:
    original: Trained
    retrained: tuple[Trained, Trained]
    case: Case

    def of(self, subject: Trained, target: str) -> Case:
        others = tuple(control for control in self.retrained if control is not subject)
        return replace(self.case, subject=subject, target=target, controls=others)


@cache
def original() -> tuple[Split, Trained]:
    split = Digits(limit=600).load()
    return split, fit(split, split.train, "original")


def fit(split: Split, records: Examples, *stream: str | int) -> Trained:
    recipe, factory = Recipe(epochs=8, batch_size=64), ConvNet(width=3)
    return Plain().fit(Classification.of(split), records, recipe, factory, rng=Rng(0).child(*stream))


@cache
def situation(selection: str = "class=0") -> Situation:
    split, before = original()
    request = select(selection, split.train, split.classes, rng=Rng(0))
    retain = split.train.without(request.ids.tolist())
    first, second = (fit(split, retain, "control", i) for i in range(2))
    case = Case(split, (request,), before, before, "original", (first, second), 0)
    return Situation(before, (first, second), case)


@cache
def bench() -> Bench:
    """The bench of `palimpsest check`, its models trained once for all tests."""
    return Bench()


@cache
def drawing_bench() -> Bench:
    """The same for members of the task of reconstruction."""
    return Bench.of((Reconstruction.name,), Plain(), {})


@cache
def reading_bench() -> Bench:
    """The same for members of the task of language."""
    return Bench.of((Language.name,), Plain(), {})


def bench_of(member: Any) -> Bench:
    if Classification.name in member.tasks:
        return bench()
    return drawing_bench() if Reconstruction.name in member.tasks else reading_bench()


def situation_of(member: Any, selection: str = "class=0") -> Situation:
    """A situation of the member's own task."""
    if Classification.name in member.tasks:
        return situation(selection)
    case = bench_of(member).ordinary[0]
    return Situation(case.original, (case.subject, case.controls[0]), case)
