"""What attacks that name deleted classes share: ties, and questions that have no answer."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage._labels import LabelGuess
from palimpsest.attack.leakage.label_inference import USER, LabelInference
from palimpsest.attack.leakage.label_only_inference import LabelOnlyInference
from palimpsest.case import Case
from palimpsest.errors import BadInput
from palimpsest.forget.selection import select
from palimpsest.learn.base import Trained
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import View
from palimpsest.types import Split


@dataclass(frozen=True)
class Told(LabelGuess):
    """Drops as given, of two probes a class; those of `never` were not accepted."""

    threat = USER
    primary = "told.accuracy"
    fell: tuple[float, ...] = (0.0,) * 10
    never: tuple[int, ...] = ()

    def ready(self, view: View, *, rng: Rng) -> Guess:
        classes = torch.arange(10).repeat_interleave(2)
        return Guess({"classes": classes, "accepted": ~torch.isin(classes, torch.tensor(self.never))})

    def drops(self, view: View, made: Guess) -> Tensor:
        return torch.tensor(self.fell).repeat_interleave(2)


@dataclass(frozen=True)
class Careful(Told):
    only_accepted = True


def case(digits: Split, task: Classification, selection: str = "class=0", *, moved: bool = True) -> Case:
    model = Linear().build(task, Rng(0)).eval()
    other = copy.deepcopy(model)
    if moved:
        with torch.no_grad():
            next(other.parameters()).add_(0.01)
    one, two = (Trained(made, task, digits.train.ids) for made in (model, other))
    return Case(digits, (select(selection, digits.train, digits.classes, rng=Rng(0)),), one, two)


def named(attack: LabelGuess, digits: Split, task: Classification, seed: int, selection: str = "class=0") -> list[int]:
    answer: list[int] = attack.run(case(digits, task, selection), rng=Rng(seed))[0].tensors["answer"].tolist()
    return answer


def test_equal_drops_are_decided_by_lot(digits: Split, digits_task: Classification) -> None:
    """Class 0, the first of equals, is not the answer of an attack that sees nothing."""
    answers = [named(Told(), digits, digits_task, seed)[0] for seed in range(40)]
    assert len(set(answers)) >= 8
    assert answers.count(0) <= 12
    assert answers == [named(Told(), digits, digits_task, seed)[0] for seed in range(40)]
    few = Told(fell=(0.0, 0.2, 0.2, *[0.0] * 7))
    assert {named(few, digits, digits_task, seed)[0] for seed in range(20)} == {1, 2}
    assert {named(Told(fell=(*[0.0] * 9, 0.1)), digits, digits_task, seed)[0] for seed in range(5)} == {9}


def test_a_class_without_probes_is_named_last(digits: Split, digits_task: Classification) -> None:
    """Where all others gained, its missing drop of 0 is the largest."""
    fell = (0.0, *[-0.1] * 8, -0.05)
    assert named(Told(fell=fell, never=(0,)), digits, digits_task, 0) == [0]
    assert named(Careful(fell=fell, never=(0,)), digits, digits_task, 0) == [9]
    assert LabelOnlyInference.only_accepted


def test_where_all_classes_were_deleted_from_there_is_nothing_to_name(
    digits: Split, digits_task: Classification
) -> None:
    with pytest.raises(BadInput, match=r"got 10 of 10, all there are, expected fewer"):
        named(Told(), digits, digits_task, 0, "random=0.3")


def test_equal_weights_are_refused(digits: Split, digits_task: Classification) -> None:
    with pytest.raises(BadInput, match="equal weights"):
        Told().run(case(digits, digits_task, moved=False), rng=Rng(0))
    quick = LabelInference(strategy="random_squares", probes=1, changes=2, tries=1)
    with pytest.raises(BadInput, match="equal weights"):
        quick.run(case(digits, digits_task, moved=False), rng=Rng(0))


def test_as_many_classes_are_named_as_were_deleted_from(digits: Split, digits_task: Classification) -> None:
    """Two classes deleted from: two are named, and each right one counts half."""
    two = replace(
        case(digits, digits_task),
        requests=(
            select("class=3", digits.train, digits.classes, rng=Rng(0)),
            select("class=5", digits.train, digits.classes, rng=Rng(0)),
        ),
    )
    fell = tuple(0.1 * float(c in (3, 7)) for c in range(10))
    guess, scores = Told(fell=fell).run(two, rng=Rng(0))
    assert sorted(guess.tensors["answer"].tolist()) == [3, 7]
    assert scores["right"].tolist() == [0.5]
