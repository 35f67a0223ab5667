"""Before training: what an adversary hands in, in its own records' place; every seed has its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palimpsest.attack.base import Attack
from palimpsest.audit.plan import Plan
from palimpsest.audit.requests import chosen_requests
from palimpsest.audit.workshop import NotMade, Workshop, named
from palimpsest.catalog import identity, name_of
from palimpsest.errors import ContractError
from palimpsest.learn.base import Learner, Trained
from palimpsest.learn.recipe import Recipe
from palimpsest.rng import Rng
from palimpsest.store import digest, environment
from palimpsest.threat import Ground, Submission, TrainingView
from palimpsest.types import Examples, ForgetRequest, Split

EDGE = 1e-6
"""By how much submitted values may miss the domain, of its width: rounding."""


@dataclass(frozen=True)
class Prepared:
    """The data of one seed as they are trained on. requests: what will be asked to be forgotten, in order, chosen before anything
    was handed in. submission: what was; None: nothing. before: the data before it."""

    split: Split
    shop: Workshop
    requests: list[ForgetRequest]
    before: Split
    submission: Submission | None = None


def prepared(plan: Plan, learner: Learner, recipe: Recipe, split: Split, shop: Workshop, seed: int) -> Prepared:
    """Asks the plan's poisoner, where it has one, for its records. Raises ContractError for ones that nobody could hand in."""
    requests, attack = chosen_requests(plan, split, shop.task, seed), plan.poisoner
    if attack is None:
        return Prepared(split, shop, requests, split)
    own = split.train.only([str(name) for request in requests for name in request.ids])

    def fit(examples: Examples, rng: Rng, share: float) -> Trained:
        brief = replace(recipe, epochs=max(1, round(share * recipe.epochs)))
        return shop.fit(learner, brief, plan.model, examples, rng).trained

    def make() -> Submission:
        ground = Ground(split, own, shop.task, recipe, plan.model, fit)
        found = attack.prepare(TrainingView(attack.threat, ground), rng=Rng(seed).child("prepare", name_of(attack)))
        _check(attack, found, own, split, shop.task.attacked_input)
        return found

    told = {"learner": identity(learner), "recipe": identity(recipe), "model": identity(plan.model), "seed": seed}
    key, submission = _kept(shop, attack, own, told, make)
    train = split.train.altered(submission.ids, submission.inputs, submission.targets)
    after = replace(split, train=train, fingerprint=digest([split.fingerprint, key]))
    poisoned = replace(shop, fingerprint=after.fingerprint, unaltered=shop.fingerprint)
    asked = [_detected(request, plan.detected, Rng(seed).child("detected", at)) for at, request in enumerate(requests)]
    return Prepared(after, poisoned, asked, split, submission)


def _kept(
    shop: Workshop, attack: Attack, own: Examples, told: Mapping[str, Any], make: Callable[[], Submission]
) -> tuple[str, Submission]:
    """What an adversary hands in, with its key: from the store or, where contents are redacted, from this process alone."""
    spec = {
        "submission": identity(attack),
        "own": digest(sorted(own.ids.tolist())),
        **told,
        "task": shop.task.identity(),
        "data": shop.fingerprint,
        "environment": environment(shop.device),
    }
    key = digest(spec)
    if key in shop.handed_in:
        return key, shop.handed_in[key]
    found = shop.store.get("submission", spec)
    if found is not None:
        ids = np.asarray(found.info["ids"], dtype=np.str_)
        inputs, kept = named(found.tensors, "inputs/"), named(found.tensors, "kept/")
        made = Submission(ids, inputs, found.tensors["targets"], kept, found.info["gradients"])
    elif shop.closed:
        raise NotMade
    else:
        made = make()
        tensors = {f"inputs/{name}": value for name, value in made.inputs.items()}
        tensors |= {f"kept/{name}": value for name, value in made.kept.items()} | {"targets": made.targets}
        info = {"ids": made.ids.tolist(), "gradients": made.gradients}
        if not shop.store.redact:
            shop.store.put("submission", spec, tensors, info, own.ids.tolist())
    shop.handed_in[key] = made
    return key, made


def _detected(request: ForgetRequest, share: float, rng: Rng) -> ForgetRequest:
    """The same for a share of its records, at least one, drawn at random."""
    if share == 1:
        return request
    count = max(1, round(share * len(request)))
    ids = request.ids[np.sort(rng.numpy().permutation(len(request))[:count])]
    return replace(request, ids=ids, selection=f"{request.selection}, {share:.0%} of it detected")


def overstepped(attack: Attack, found: Submission, own: Examples, domain: tuple[Tensor, Tensor], attacked: str) -> str:
    """By how much a submitted value differs from what it was, where that is more than the attack's `epsilon`, a share of the range;
    empty where it is not, and for an attack without that field."""
    bound = getattr(attack, "epsilon", None)
    if not isinstance(bound, int | float) or attacked not in found.inputs:
        return ""
    mine = own.only(found.ids.tolist())
    place = {name: at for at, name in enumerate(mine.ids.tolist())}
    before = mine.batch().inputs[attacked].float()[[place[name] for name in found.ids.tolist()]]
    moved = (found.inputs[attacked].to(before) - before).abs()
    low, high = (edge.to(before) for edge in domain)
    most = float(torch.where(moved > 0, moved / (high - low), moved).max())
    return f"a value changed by {most:.4g} of its range, beyond ε = {bound:.4g}" if most > bound + EDGE else ""


def _check(attack: Attack, found: Submission, own: Examples, split: Split, attacked: str) -> None:
    """Its own records alone, of the records' shape and range, changed within its own bound where it has one (`epsilon`), with
    classes that there are."""
    name = name_of(attack)
    if not len(found.ids) or not set(found.ids.tolist()) <= set(own.ids.tolist()):
        raise ContractError(f"{name}: got records that are not its own, or none, expected some of its {len(own)}")
    for given, values in found.inputs.items():
        if not bool(torch.isfinite(values.float()).all()):
            raise ContractError(f"{name}: got a value of {given} that is not finite, expected finite ones")
        if given != attacked:
            continue
        low, high = (edge.to(values.device) for edge in split.domain)
        slack = EDGE * (high - low)
        if not bool(((values >= low - slack) & (values <= high + slack)).all()):
            got = f"values from {float(values.min()):.4g} to {float(values.max()):.4g}"
            raise ContractError(f"{name}: got {got}, expected ones in the records' range")
    if beyond := overstepped(attack, found, own, split.domain, attacked):
        raise ContractError(f"{name}: got {beyond}, expected changes within it")
    if not bool(((found.targets >= 0) & (found.targets < len(split.classes))).all()):
        raise ContractError(f"{name}: got a class that is not there, expected 0 to {len(split.classes) - 1}")
