"""Models and scores of an audit, each made once: what the store holds is loaded, the rest is made and stored."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.attack.base import Attack, Guess
from palimpsest.case import Case
from palimpsest.catalog import identity
from palimpsest.defend.base import ModelRelease
from palimpsest.errors import NotFinite, PalimpsestError
from palimpsest.learn._extractor import Extractor, taught
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.loop import Checkpoint, Meter
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.models.files import not_finite
from palimpsest.rng import Rng
from palimpsest.store import Artifact, Store, digest, environment
from palimpsest.task import Classification, Task, evaluating, predict
from palimpsest.threat import Submission
from palimpsest.types import Cost, Examples, Ids, Scores, Split
from palimpsest.unlearn.base import Unlearner
from palimpsest.verify.base import Verifier


@dataclass(frozen=True)
class Made:
    """A model known by the key of what made it; its weights are loaded when they are first asked for.

    ids: records that it was trained on and has not unlearned. holds: records that had any part in its weights.
    """

    key: str
    get: Callable[[], Trained] = field(repr=False)
    ids: Ids
    holds: Ids
    cost: Cost = field(default_factory=Cost)

    @cached_property
    def trained(self) -> Trained:
        return self.get()

    def unload(self) -> None:
        self.__dict__.pop("trained", None)


SHOWN = 6
"""Attacked inputs kept with the scores, for the report's pictures."""
ATTACKED, RECOVERED = "attacked", "recovered"
WITHHELD = "withheld"
"""Told of scores whose attacked inputs were left out, as contents were redacted."""


@dataclass(frozen=True)
class Scored:
    """Scores, the key that they are stored under, and what making them took.

    shown: a few attacked inputs of the largest budget, shape (up to SHOWN, *shape), of the first scored records, or the pictures
    that the attack leaves of those that its scores call `pictured`, shape (up to SHOWN, pictures, *shape); None where it has none,
    or contents are redacted.
    """

    key: str
    scores: Scores
    seconds: float
    shown: Tensor | None = None


class NotMade(Exception):
    """A model or scores that the store does not have, where nothing is to be made."""


@dataclass(frozen=True)
class Workshop:
    """Makes, stores and loads. `made` counts what was not in the store, `redacted` what was taken out of it: attacked
    inputs of scores, and guesses.

    public: records that models are pre-trained on, by learners that ask for it.
    closed: raise NotMade instead of making anything.
    unaltered: the data's fingerprint before anything was handed in, which models are known by that never saw what was.
    """

    store: Store
    task: Task
    fingerprint: str
    device: str = "cpu"
    validation: Examples | None = None
    public: Examples | None = None
    closed: bool = False
    unaltered: str = ""
    guesses: dict[str, Guess] = field(default_factory=dict, repr=False, compare=False)
    handed_in: dict[str, Submission] = field(default_factory=dict, repr=False, compare=False)
    made: dict[str, int] = field(default_factory=lambda: {"models": 0, "scores": 0, "redacted": 0})

    def fit(self, learner: Learner, recipe: Recipe, factory: Model, examples: Examples, rng: Rng) -> Made:
        """A model trained on these records; a killed run goes on from its last checkpoint."""
        spec = self._spec(rng, learner=identity(learner), recipe=identity(recipe), model=identity(factory))
        spec["ids"] = digest(sorted(examples.ids.tolist()))
        if self.unaltered and not examples.handed_in.any():
            spec["data"] = self.unaltered
        base = self._pretrained(learner, factory, rng)
        if base is not None:
            spec["base"] = base.key
        holds = examples.ids if base is None else np.union1d(examples.ids, base.holds)
        found = self.store.get("model", spec)
        if found is None:
            self._open()
            trained = learner.fit(
                self.task,
                examples,
                recipe,
                factory,
                rng=rng,
                checkpoint=Checkpoint(self.store, spec, holds=tuple(holds.tolist())),
                device=self.device,
                initial=None if base is None else base.trained.model.state_dict(),
            )
            found = self._keep(spec, trained, holds, trained.kept)
        artifact = found

        def load() -> Trained:
            model = learner.skeleton(factory, self.task, rng)
            self._fill(model, artifact)
            kept = named(artifact.tensors, "kept/")
            return Trained(model, self.task, examples.ids, learner, recipe, factory, kept, cost=_cost(artifact))

        return Made(artifact.key, load, examples.ids, holds, _cost(artifact))

    def _pretrained(self, learner: Learner, factory: Model, rng: Rng) -> Made | None:
        """The model that this seed's originals and controls start from; None where the learner asks for none."""
        if learner.pretraining is None or self.public is None:
            return None
        return self.fit(Plain(), learner.pretraining, factory, self.public, Rng(rng.seed).child("pretraining"))

    def _public_of(self, made: Made) -> Ids:
        """Ids of the public records that had a part in a model's weights."""
        return made.holds[:0] if self.public is None else np.intersect1d(made.holds, self.public.ids)

    def unlearn(self, unlearner: Unlearner, before: Made, retain: Examples, forget: Examples, rng: Rng) -> Made:
        """The model after `unlearner`. Raises what it raises; that it diverged is kept, and it is not run again."""
        spec = self._spec(rng, unlearner=identity(unlearner), before=before.key)
        spec["forget"] = digest(sorted(forget.ids.tolist()))
        ids = np.setdiff1d(before.ids, forget.ids)
        holds = np.union1d(ids, self._public_of(before)) if unlearner.guarantee == "exact" else before.holds
        found = self.store.get("model", spec)
        if found is None and (known := self.store.get("failure", spec)) is not None:
            raise PalimpsestError(known.info["reason"])
        if found is None:
            self._open()
            checkpoint = Checkpoint(self.store, spec, holds=tuple(holds.tolist()))
            resumable = replace(before.trained, checkpoint=checkpoint, validation=self.validation)
            try:
                trained = unlearner.unlearn(resumable, retain, forget, rng=rng)
            except NotFinite as error:
                self.store.put("failure", spec, {}, {"reason": str(error)}, holds.tolist())
                raise
            found = self._keep(spec, trained, holds, {} if trained.kept is before.trained.kept else trained.kept)
        artifact = found

        def load() -> Trained:
            model = copy.deepcopy(before.trained.model)
            self._fill(model, artifact)
            kept = named(artifact.tensors, "kept/") or before.trained.kept
            budget = unlearner.budget(kept)
            return replace(before.trained, model=model, ids=ids, kept=kept, budget=budget, cost=_cost(artifact))

        return Made(artifact.key, load, ids, holds, _cost(artifact))

    def error(self, made: Made, records: Examples) -> float:
        """Mean error of a model on records that it was not trained on. Raises BadInput where an answer is not finite."""
        spec = {"error": made.key, "of": digest(sorted(records.ids.tolist())), "data": self.fingerprint}
        found = self.store.get("error", spec)
        if found is None:
            self._open()
            model = made.trained.model
            predict(self.task, model, records)
            with evaluating(model):
                errors = torch.cat([self.task.error(model, batch).cpu() for batch in records.batches(512)])
            found = self.store.put("error", spec, {"error": errors}, {}, {*made.holds.tolist(), *records.ids.tolist()})
        return float(found.tensors["error"].double().mean())

    def release(self, release: ModelRelease, before: Made, retain: Examples, rng: Rng) -> Made:
        """The model as it is served through `release`; what models of a situation share of it is made once, from the retain set."""
        spec = self._spec(rng, release=identity(release))
        spec["ids"] = digest(sorted(retain.ids.tolist()))
        found = self.store.get("release", spec)
        if found is None:
            self._open()
            found = self._prepared(release, retain, rng, spec)
        artifact = found

        def load() -> Trained:
            part = release.part(self.task)
            self._fill(part, artifact)
            release.restore(part, retain)
            model = release.release(part, before.trained.model).to(self.device).eval()
            return replace(before.trained, model=model, cost=before.cost + _cost(artifact))

        key = digest({"release": artifact.key, "of": before.key})
        holds = np.union1d(before.holds, retain.ids)
        return Made(key, load, before.ids, holds, before.cost + _cost(artifact))

    def extractor(self, wanted: Extractor, split: Split) -> nn.Module:
        """The classifier by whose features images are compared: the user's own, or one trained on these data once."""
        if wanted.given:
            return wanted.module().to(self.device)
        shop = replace(self, task=Classification.of(split))
        return shop.fit(Plain(), wanted.recipe, wanted.model(), taught(split), wanted.rng).trained.model

    def _prepared(self, release: ModelRelease, retain: Examples, rng: Rng, spec: dict[str, Any]) -> Artifact:
        """Trains what models share of a release and keeps it. Raises PalimpsestError where it is not finite."""
        meter = Meter(device=self.device)
        with rng.child("weights").ambient():
            part = release.part(self.task).to(self.device)
        start = {name: value.clone() for name, value in part.state_dict().items()}
        release.prepare(part, self.task, retain, rng=rng, meter=meter)
        bad = not_finite(part.state_dict(), start)
        if bad:
            raise PalimpsestError(f"got weights that are not finite in {bad[0]}, expected finite ones; lower its rate")
        self.made["models"] += 1
        tensors = {f"model/{name}": value for name, value in part.state_dict().items()}
        return self.store.put("release", spec, tensors, {"cost": vars(meter.cost)}, retain.ids.tolist())

    def attack(
        self,
        attack: Attack,
        subject: Made,
        case: Callable[[], Case],
        about: Mapping[str, Any],
        holds: Iterable[str],
        *,
        pictured: bool = False,
    ) -> Scored:
        """Scores of an attack on a case. `about` is what the case is made of, beside the subject's key. pictured: whether the
        attacked inputs are wanted too; where an earlier, redacted run left them out, the attack runs again.

        The stream of randomness depends on the case's seed and the attack alone: controls meet the same noise."""

        def spec(name: str) -> dict[str, Any]:
            kept = ("original", "seed", "before") if name == "ready" else tuple(about)
            seen = {key: about[key] for key in kept if key in about}
            seen |= {"subject": subject.key} if name == "guess" else {}
            seen.pop("target", None)  # what an adversary guesses does not depend on what it is judged by
            return {name: identity(attack), **seen, "data": self.fingerprint, "environment": environment(self.device)}

        def keep(name: str, make: Callable[[], Guess]) -> Guess:
            return self._guess(spec(name), make, holds)

        def run() -> tuple[Scores, Guess | None]:
            situation = replace(case(), extract=self.extractor)
            guess, scores = attack.run(situation, rng=situation.rng.child("attack", type(attack).__name__), keep=keep)
            return scores, guess

        try:
            return self._score("attack", identity(attack), subject, run, about, holds, pictured)
        finally:
            if self.store.redact:  # of an earlier run
                for name in ("ready", "guess"):
                    self.made["redacted"] += self.store.drop("guess", spec(name))

    def _guess(self, spec: dict[str, Any], make: Callable[[], Guess], holds: Iterable[str]) -> Guess:
        """What an adversary came up with, from the store or, where contents are redacted, from this process alone."""
        key = digest(spec)
        if key in self.guesses:
            return self.guesses[key]
        found = self.store.get("guess", spec)
        if found is None:
            self._open()
            guess = make()
        else:
            told = found.info
            guess = Guess(found.tensors, told["info"], told["queries"], told["gradients"])
        if self.store.redact:
            self.guesses[key] = guess
        elif found is None:
            told = {"info": dict(guess.info), "queries": guess.queries, "gradients": guess.gradients}
            self.store.put("guess", spec, guess.tensors, told, set(map(str, holds)))
        return guess

    def verify(
        self,
        verifier: Verifier,
        subject: Made,
        case: Callable[[], Case],
        about: Mapping[str, Any],
        holds: Iterable[str],
    ) -> Scored:
        """Scores of a verifier on a case."""

        def run() -> tuple[Scores, Guess | None]:
            return verifier.verify(case()), None

        return self._score("verifier", identity(verifier), subject, run, about, holds)

    def _score(
        self,
        what: str,
        who: Mapping[str, Any],
        subject: Made,
        run: Callable[[], tuple[Scores, Guess | None]],
        about: Mapping[str, Any],
        holds: Iterable[str],
        pictured: bool = False,
    ) -> Scored:
        spec = {
            what: who,
            "subject": subject.key,
            **about,
            "data": self.fingerprint,
            "environment": environment(self.device),
        }
        found = self.store.get("scores", spec)
        if found is not None and self.store.redact and ATTACKED in found.tensors:  # of an earlier run
            rest = {name: value for name, value in found.tensors.items() if name != ATTACKED}
            held = {*map(str, holds), *found.info["ids"]}
            found = self.store.put("scores", spec, rest, {**found.info, WITHHELD: True}, held)
            self.made["redacted"] += 1
        if found is not None and pictured and not self.store.redact and found.info.get(WITHHELD):
            found = None
        if found is None:
            self._open()
            start = wall()
            scores, guess = run()
            seconds = wall() - start
            tensors = {f"scores/{name}": torch.from_numpy(np.ascontiguousarray(v)) for name, v in scores.arrays.items()}
            info = {"unit": scores.unit, "ids": scores.ids.tolist(), "axes": dict(scores.axes), "seconds": seconds}
            if guess is not None and (ATTACKED in guess.tensors or RECOVERED in guess.tensors):
                if self.store.redact:
                    info[WITHHELD] = True
                else:
                    tensors[ATTACKED] = _shown(guess)
            found = self.store.put("scores", spec, tensors, info, {*map(str, holds), *scores.ids.tolist()})
            self.made["scores"] += 1
        axes = {name: tuple(values) for name, values in found.info["axes"].items()}
        arrays = {name: value.numpy() for name, value in named(found.tensors, "scores/").items()}
        scores = Scores(found.info["unit"], np.asarray(found.info["ids"], dtype=np.str_), arrays, axes)
        shown = None if self.store.redact else found.tensors.get(ATTACKED)
        return Scored(found.key, scores, found.info["seconds"], shown)

    def _open(self) -> None:
        if self.closed:
            raise NotMade

    def _spec(self, rng: Rng, **makers: Any) -> dict[str, Any]:
        return {
            **makers,
            "task": self.task.identity(),
            "data": self.fingerprint,
            "seed": [rng.seed, *rng.path],
            "environment": environment(self.device),
        }

    def _keep(self, spec: dict[str, Any], trained: Trained, holds: Ids, kept: Mapping[str, Tensor]) -> Artifact:
        tensors = {f"model/{name}": value for name, value in trained.model.state_dict().items()}
        tensors |= {f"kept/{name}": value for name, value in kept.items()}
        self.made["models"] += 1
        return self.store.put("model", spec, tensors, {"cost": vars(trained.cost)}, holds.tolist())

    def _fill(self, model: torch.nn.Module, artifact: Artifact) -> None:
        model.load_state_dict(named(artifact.tensors, "model/"))
        model.to(self.device).eval()


def wall() -> float:
    """The wall clock once queued GPU work is done."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()


def _shown(guess: Guess) -> Tensor:
    """What the report shows of a guess: its own pictures, or else the first attacked inputs of the largest budget."""
    if RECOVERED in guess.tensors:
        return guess.tensors[RECOVERED]
    if "pictures" in guess.tensors:
        return guess.tensors["pictures"]
    return guess.tensors[ATTACKED][:SHOWN, int(np.argmax(guess.info["epsilon"]))]


def named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _cost(artifact: Artifact) -> Cost:
    return Cost(**artifact.info["cost"])
