"""What the evaluator knows of one situation: the truth that no attack is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn._extractor import Extract, trained_here
from palimpsest.learn.base import Trained
from palimpsest.rng import Rng
from palimpsest.task import Task, predict
from palimpsest.types import Examples, ForgetRequest, Split

GROUPS = ("retain", "forget", "test", "heldout")
TARGETS = (
    "original",
    "retrained",
    "unlearned",
    "placebo",
    "known-leak",
    "bias-matched",
    "untrained",
    "clean",
    "honest",
)


@dataclass(frozen=True)
class Case:
    """One subject before and after unlearning, with its controls, of one seed.

    subject: the model under test; `target` says what it stands for ("unlearned", or a control's name).
    requests: all requests granted so far; their ids are stored, never derived again.
    seen: the model that the adversary is shown in the subject's place; None: the subject itself. seen_before: the one that it is
    shown in the original's.
    controls: models retrained without the forgotten records, on the same split with other seeds.
    submission: what an adversary handed in before the original was trained, which is in `split` then; None: nothing.
    extract: gives the classifier by whose features images are compared; as it is, one that is trained when it is asked for.
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
    seen: Trained | None = None
    seen_before: Trained | None = None
    submission: Any = None
    extract: Extract = field(default=trained_here, repr=False, compare=False)
    answers: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = field(
        default_factory=WeakKeyDictionary, repr=False, compare=False
    )  # posteriors already asked for; cases of one stage share them

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise BadInput("case target", got=self.target, expected=", ".join(TARGETS))

    @property
    def task(self) -> Task:
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
        return classes_gone(self.split, self.forgotten)

    @cached_property
    def heldout(self) -> Examples:
        """Test records, never trained on, of the classes that the forget set has (`held_out`)."""
        placebo: Examples | None = self.extra.get("heldout")
        return held_out(self.split, self.forgotten) if placebo is None else placebo

    @cached_property
    def candidates(self) -> Examples:
        """The forgotten and the held-out records, in an order that does not tell which is which."""
        both = Examples.joined([self.forget, self.heldout])
        return both.take(self.rng.child("candidates").numpy().permutation(len(both)))

    @cached_property
    def nonmembers(self) -> Examples:
        """Test records of the classes that are still to be known, none of them held out: what an attacker may know."""
        return self.test.without(held_out(self.split, self.forgotten).ids)

    @cached_property
    def test(self) -> Examples:
        """Test records of the classes that are still to be known (without the classes forgotten whole)."""
        test = self.split.test
        return test.take(~np.isin(test.targets.cpu().numpy(), self.forgotten_classes))

    def group(self, name: str) -> Examples:
        """The records of a group: retain, forget, test or heldout."""
        if name not in GROUPS:
            raise BadInput("group of records", got=name, expected=", ".join(GROUPS))
        part: Examples = getattr(self, name)
        return part

    def posterior(self, trained: Trained, group: str) -> Tensor:
        """A model's posteriors of a group's records, shape (n, k), asked for once per model."""
        known = self.answers.setdefault(trained.model, {})
        if group not in known:
            known[group] = predict(self.task, trained.model, self.group(group))
        return known[group]

    def of(self, subject: Trained, target: str, **extra: Any) -> Case:
        """The same situation with another model in the subject's place: a control."""
        return replace(self, subject=subject, target=target, extra={**self.extra, **extra})

    @property
    def rng(self) -> Rng:
        return Rng(self.seed)


def classes_gone(split: Split, forgotten: set[str]) -> tuple[int, ...]:
    """Classes of which no record that a model learns from is left once these are forgotten, no public one either."""
    train = split.train
    gone = np.isin(train.ids, np.asarray(sorted(forgotten), dtype=np.str_))
    targets = train.targets.cpu().numpy()
    public = targets[:0] if split.public is None else split.public.targets.cpu().numpy()
    known = np.concatenate([targets[~gone], public])
    return tuple(int(c) for c in np.setdiff1d(targets[gone], known))


def held_out(split: Split, forgotten: set[str]) -> Examples:
    """Test records of the classes that the forgotten training records have, to compare these with.

    All of a class that was forgotten whole; of a class that is still to be known a half, drawn by id, as the other half may
    be known to an attacker, who must not be judged on records that it learnt from.
    """
    classes = np.unique(split.train.only(forgotten).targets.cpu().numpy())
    targets = split.test.targets.cpu().numpy()
    whole = np.isin(targets, classes_gone(split, forgotten))
    return split.test.take(np.isin(targets, classes) & (whole | halves(split.test, "held out")))


def halves(examples: Examples, name: str) -> NDArray[np.bool_]:
    """Which records are in the first of two halves, shape (n,): by id, so that other records make no difference."""
    return np.array([Rng(0).child(name, str(one)).key % 2 == 0 for one in examples.ids], dtype=bool)
