"""The contract can fail: of each kind, members that are broken on purpose, and the check that catches each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from palimpsest import contract
from palimpsest.attack.base import Guess
from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.contract.bench import Bench
from palimpsest.data.digits import Digits
from palimpsest.learn._trajectory import Recorder
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.learn.recorded import Recorded
from palimpsest.models.linear import Linear
from palimpsest.types import Examples, Measure, Scores, Split
from palimpsest.unlearn.base import Unlearner
from palimpsest.verify.accuracy import Accuracy
from tests.contract.situations import bench

WINS = "finds more in the original than in a retrained model"


def failing(kind: str, subject: Any, on: Bench | None = None) -> set[str]:
    return {outcome.check for outcome in contract.run(kind, subject, on or bench()) if not outcome.passed}


def with_confidence(scores: Scores, values: Any) -> Scores:
    return replace(scores, arrays={**scores.arrays, "confidence": np.asarray(values, dtype=np.float32)})


class SaysMember(ConfidenceMembership):
    """Calls every record a member."""

    def score(self, guess: Guess, case: Any) -> Scores:
        scores = super().score(guess, case)
        return with_confidence(scores, np.ones(len(scores.ids)))


class Lucky(ConfidenceMembership):
    """Scores at random, another way each time."""

    def score(self, guess: Guess, case: Any) -> Scores:
        scores = super().score(guess, case)
        return with_confidence(scores, np.random.default_rng().random(len(scores.ids)))


class Hashes(ConfidenceMembership):
    """Scores at random, always the same for the same model."""

    def score(self, guess: Guess, case: Any) -> Scores:
        scores = super().score(guess, case)
        seed = hashlib.sha256(guess.tensors["confidence"].numpy().tobytes()).digest()
        return with_confidence(scores, np.random.default_rng(list(seed)).random(len(scores.ids)))


class ReadsTheLabel(ConfidenceMembership):
    """Finds everything wherever the evaluator says that it is no retrained model, and nothing elsewhere."""

    def score(self, guess: Guess, case: Any) -> Scores:
        scores = super().score(guess, case)
        known = case.target != "retrained"
        return with_confidence(scores, (scores["group"] == 0) & known)


class Uncounted(ConfidenceMembership):
    """Asks more than it says."""

    def observe(self, view: Any, *, rng: Any) -> Guess:
        return replace(super().observe(view, rng=rng), queries=1)


@pytest.mark.parametrize(
    ("attack", "caught_by"),
    [
        (SaysMember(), {WINS}),
        (Lucky(), {"same stream, same scores"}),
        (Hashes(), {WINS}),
        (ReadsTheLabel(), {"equal models, equal measures"}),
        (Uncounted(), {"counts its queries"}),
    ],
)
def test_an_attack(attack: ConfidenceMembership, caught_by: set[str]) -> None:
    assert failing("attacks", attack) >= caught_by


class Repeated(Digits):
    """A test record is a training record too."""

    def load(self) -> Split:
        split = super().load()
        return replace(split, test=Examples.joined([split.test, split.train.take([0])]))


class Numbered(Digits):
    """Ids are positions."""

    def load(self) -> Split:
        split, parts = super().load(), {}
        for name in ("train", "validation", "test"):
            part = getattr(split, name)
            parts[name] = replace(part, ids=np.array([f"{name}/{i}" for i in range(len(part))]))
        return replace(split, **parts)


class Shuffled(Digits):
    """Another order every time, and ids that follow the order."""

    def load(self) -> Split:
        split = super().load()
        order = np.random.default_rng().permutation(len(split.train))
        return replace(split, train=replace(split.train.take(order), ids=split.train.ids))


@pytest.mark.parametrize(
    ("data", "caught_by"),
    [
        (Repeated(), "parts have disjoint ids"),
        (Numbered(), "ids name records, not positions"),
        (Shuffled(), "read twice it is the same"),
    ],
)
def test_a_data_set(data: Digits, caught_by: str) -> None:
    assert caught_by in failing("data", data)


class Centred(nn.Module):
    """Subtracts the mean of the batch, in evaluation mode too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs - inputs.mean(0, keepdim=True))


class LooksAround(Linear):
    """Its answer to a record depends on the batch."""

    def network(self, task: Any) -> nn.Module:
        return Centred(super().network(task))


class Unseeded(Linear):
    """Weights that do not come from the stream."""

    def network(self, task: Any) -> nn.Module:
        network = super().network(task)
        for parameter in network.parameters():
            parameter.data += float(np.random.default_rng().random())
        return network


class Constant(Linear):
    """The same weights from every stream, and no word of where they come from."""

    def network(self, task: Any) -> nn.Module:
        network = super().network(task)
        for parameter in network.parameters():
            parameter.data.fill_(0.5)
        return network


@pytest.mark.parametrize(
    ("model", "caught_by"),
    [
        (LooksAround(), "answers to a record do not depend on its batch"),
        (Unseeded(), "same stream, same weights"),
        (Constant(), "another stream, other weights"),
    ],
)
def test_a_model(model: Linear, caught_by: str) -> None:
    assert failing("models", model) == {caught_by}


class Noisy(Plain):
    """Another model on every run."""

    def learn(self, model: nn.Module, *args: Any, **named: Any) -> None:
        super().learn(model, *args, **named)
        for parameter in model.parameters():
            parameter.data += 1e-6 * float(np.random.default_rng().random())


class Forgetful(Plain):
    """Writes checkpoints, and begins anew all the same."""

    def learn(self, model: nn.Module, *args: Any, checkpoint: Any, **named: Any) -> None:
        if checkpoint:
            checkpoint = replace(checkpoint, spec={**checkpoint.spec, "run": float(np.random.default_rng().random())})
        super().learn(model, *args, checkpoint=checkpoint, **named)


class HalfRecorded(Recorded):
    """Its record begins where the run went on after a stop."""

    def learn(self, *args: Any, **named: Any) -> Mapping[str, Tensor]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Recorder, "restore", lambda *_: None)
            return super().learn(*args, **named)


@pytest.mark.parametrize(
    ("learner", "caught_by"),
    [
        (HalfRecorded(), {"resumes to the same weights"}),
        (Noisy(), {"same seed, same weights", "resumes to the same weights"}),
        (Forgetful(), {"resumes to the same weights"}),
    ],
)
def test_a_learner(learner: Learner, caught_by: set[str]) -> None:
    quick = Bench(data=Digits(limit=200), recipe=Recipe(epochs=6, batch_size=16))  # each learner is run six times
    assert failing("learners", learner, quick) == caught_by


class Shifts(Unlearner):
    """Moves all weights by a little, which is what the broken ones below do too."""

    def update(self, model: nn.Module, trained: Trained, retain: Any, forget: Any, *, rng: Any, meter: Any) -> None:
        for parameter in model.parameters():
            parameter.data += self.amount(trained, rng)

    def amount(self, trained: Trained, rng: Any) -> float:
        return float(rng.numpy().random())


class InPlace(Shifts):
    """Changes the model that goes in."""

    def amount(self, trained: Trained, rng: Any) -> float:
        next(trained.model.parameters()).data += 0.1
        return 0.1


class OwnLuck(Shifts):
    """Ignores the stream."""

    def amount(self, trained: Trained, rng: Any) -> float:
        return float(np.random.default_rng().random())


class NotExact(Shifts):
    """Goes on from the original and says that it is exact."""

    guarantee = "exact"


@pytest.mark.parametrize(
    ("unlearner", "caught_by"),
    [
        (Shifts(), set()),
        (InPlace(), {"leaves the model that goes in as it is"}),
        (OwnLuck(), {"same stream, same weights"}),
        (NotExact(), {"is exact if it says so"}),
    ],
)
def test_an_unlearner(unlearner: Unlearner, caught_by: set[str]) -> None:
    assert failing("unlearners", unlearner) == caught_by


class Percent(Accuracy):
    """Shares as percentages."""

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        return tuple(
            replace(m, value=100 * m.value, low=100 * m.low, high=100 * m.high) for m in super().measure(scores)
        )


class Constant(Accuracy):
    """Everything is always right."""

    def verify(self, case: Any) -> Scores:
        scores = super().verify(case)
        return replace(scores, arrays={**scores.arrays, "correct": np.ones(len(scores.ids))})


class NotANumber(Accuracy):
    """A score that is no number."""

    def verify(self, case: Any) -> Scores:
        scores = super().verify(case)
        return replace(scores, arrays={**scores.arrays, "confidence": np.full(len(scores.ids), np.nan)})


@pytest.mark.parametrize(
    ("verifier", "caught_by"),
    [
        (Percent(), "measures depend on the scores alone"),
        (Constant(), "tells the original from a retrained model"),
        (NotANumber(), "scores known records"),
    ],
)
def test_a_verifier(verifier: Accuracy, caught_by: str) -> None:
    assert caught_by in failing("verifiers", verifier)


def test_what_does_not_apply_is_no_pass() -> None:
    said = contract.skipped("verifiers", Accuracy())
    assert said == {"finds nothing between equal models": "it compares with no retrained model"}
    assert not set(said) & {outcome.check for outcome in contract.run("verifiers", Accuracy(), bench())}
    assert contract.skipped("unlearners", Shifts()) == {"is exact if it says so": "it does not say that it is exact"}
    assert contract.skipped("unlearners", NotExact()) == {}
    assert set(said) <= set(contract.checks("verifiers")), "a limit of a check that there is not"
