"""Checks of what judges models: attacks and verifiers."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from torch import nn

from palimpsest.attack.base import Attack
from palimpsest.case import Case
from palimpsest.contract.bench import Bench, Check, demand
from palimpsest.record import scores_from_bytes, scores_to_bytes
from palimpsest.rng import Rng
from palimpsest.threat import same_weights
from palimpsest.types import Measure, Scores
from palimpsest.verify.base import Verifier


def _declared(attack: Attack, bench: Bench) -> None:
    demand("P3" in attack.threat.phases, f"phases {attack.threat.phases}", "P3, since it observes")
    demand(bool(attack.primary), "no `primary`", "the name of the measure that verdicts go by")
    demand(bool(attack.about), "no `about`", "one line on what it does")


def _counts_queries(attack: Attack, bench: Bench) -> None:
    guess, _ = attack.run(bench.cases[0], rng=Rng(0))
    if attack.threat.sees != "weights":
        demand(guess.queries > 0, "no queries", "the view's own count: queries=view.queries")


def _leaves_models(by: Attack | Verifier, bench: Bench) -> None:
    case = bench.cases[0]
    models = [case.original.model, case.subject.model, *(control.model for control in case.controls)]
    before, states = [copy.deepcopy(model) for model in models], [_state(model) for model in models]
    _scores(by, case)
    demand(all(map(same_weights, before, models)), "changed weights", "the models as they were")
    demand(states == [_state(model) for model in models], "another mode or requires_grad", "the models as they were")


def _state(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()] + [p.requires_grad for p in model.parameters()]


def _scores_again(by: Attack | Verifier, bench: Bench) -> None:
    one, two = (_scores(by, bench.cases[0]) for _ in range(2))
    equal = one.ids.tolist() == two.ids.tolist() and all(np.array_equal(one[name], two[name]) for name in one.arrays)
    demand(equal, "other scores from the same stream", "the same")


def _measures_from_scores(by: Attack | Verifier, bench: Bench) -> None:
    scores = _scores(by, bench.cases[0])
    measures = by.measure(scores)
    demand(bool(measures), "no measures", "at least one")
    for measure in measures:
        finite = bool(np.isfinite([measure.value, measure.low, measure.high]).all())
        inside = measure.low - 1e-9 <= measure.value <= measure.high + 1e-9
        demand(finite and inside, f"{measure}", "a finite value in its interval")
    again = by.measure(scores_from_bytes(scores_to_bytes(scores)))
    same = [(m.key, m.value) for m in measures] == [(m.key, m.value) for m in again]
    demand(same, "other measures from stored scores", "measures that depend on nothing but the scores")
    if isinstance(by, Attack):
        demand(by.primary in {m.name for m in measures}, f"no measure {by.primary!r}", "the declared primary one")
        bare = [m.name for m in measures if "." not in m.name]
        demand(not bare, f"measures {bare}", "names that begin with the attack's, such as my_attack.accuracy")


def _tells(attack: Attack, bench: Bench) -> None:
    """On a retrained model there is nothing to find; on the original everything is still there."""
    gaps = []
    for case in bench.cases:
        negative = _primary(attack, _scores(attack, case))
        positive = _primary(attack, _scores(attack, case.of(case.original, "original")))
        gaps.append(max((p.value - n.value for p, n in zip(positive, negative, strict=True)), default=0.0))
    told = " and ".join(f"{gap:+.3f}" for gap in gaps)
    demand(max(gaps) > 0.02, f"{told} ({attack.primary}, original minus retrained)", "more on the original in one case")


def _primary(attack: Attack, scores: Scores) -> list[Measure]:
    return [measure for measure in attack.measure(scores) if measure.name == attack.primary]


def _nothing_between_equals(verifier: Verifier, bench: Bench) -> None:
    """A distance to retrained models is 0 where the subject is one of them."""
    if not verifier.needs_control:
        return
    case = bench.cases[0]
    twin = case.controls[0].with_model(copy.deepcopy(case.controls[0].model))
    for measure in verifier.measure(_scores(verifier, case.of(twin, "retrained"))):
        demand(abs(measure.value) < 1e-6, f"{measure.name} = {measure.value}", "0 between two equal models")


def _scores(by: Attack | Verifier, case: Case) -> Scores:
    return by.run(case, rng=Rng(0))[1] if isinstance(by, Attack) else by.verify(case)


def _units(by: Attack | Verifier, bench: Bench) -> None:
    scores = _scores(by, bench.cases[0])
    split = bench.split
    known = {*split.train.ids.tolist(), *split.test.ids.tolist(), *split.validation.ids.tolist()}
    if scores.unit == "record":
        strangers = set(scores.ids.tolist()) - known
        demand(not strangers, f"scores of {len(strangers)} unknown records", "ids of the data")
    for name, values in scores.arrays.items():
        demand(values.dtype.kind in "biuf", f"{name} as {values.dtype}", "numbers or truth values, which can be stored")


JUDGES: Mapping[str, Mapping[str, Check]] = {
    "attacks": {
        "declares its threat model": _declared,
        "leaves models as they are": _leaves_models,
        "counts its queries": _counts_queries,
        "scores known records": _units,
        "same stream, same scores": _scores_again,
        "measures depend on the scores alone": _measures_from_scores,
        "finds more in the original than in a retrained model": _tells,
    },
    "verifiers": {
        "leaves models as they are": _leaves_models,
        "scores known records": _units,
        "same scores twice": _scores_again,
        "measures depend on the scores alone": _measures_from_scores,
        "finds nothing between equal models": _nothing_between_equals,
    },
}
