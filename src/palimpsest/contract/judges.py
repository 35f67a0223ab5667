"""Checks of what judges models: attacks and verifiers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from palimpsest.attack.base import Attack, Guess
from palimpsest.audit.controls import placebo, stand_ins
from palimpsest.audit.prepared import overstepped
from palimpsest.case import Case
from palimpsest.contract.bench import Applies, Bench, Check, demand
from palimpsest.learn.base import Trained
from palimpsest.measures.intervals import difference
from palimpsest.record import scores_from_bytes, scores_to_bytes
from palimpsest.rng import Rng
from palimpsest.threat import View, same_weights
from palimpsest.types import Measure, Scores
from palimpsest.verify.base import Verifier

SHARES = ("accuracy", "rate", "auc", "fpr", "quality", "resemblance")
"""How the names of measures end that are shares."""


def _declared(attack: Attack, bench: Bench) -> None:
    demand(
        {"P1", "P3"} & set(attack.threat.phases) != set(), f"phases {attack.threat.phases}", "P1 or P3, where it acts"
    )
    demand(bool(attack.primary), "no `primary`", "the name of the measure that verdicts go by")
    demand(bool(attack.about), "no `about`", "one line on what it does")


def _hands_in(attack: Attack, bench: Bench) -> None:
    """Records of its own alone, each once, finite, in range, of classes that there are, changed within the attack's `epsilon` where
    it has one; the same again from the same stream."""
    view, one = bench.view(attack), bench.poisoned(attack).submission
    again = attack.prepare(view, rng=Rng(0).child("prepare"))
    demand(torch.equal(one.targets.cpu(), again.targets.cpu()), "other classes from the same stream", "the same")
    mine = set(view.own.ids.tolist())
    demand(len(one.ids) > 0 and set(one.ids.tolist()) <= mine, "records of others, or none", "some of its own")
    low, high = (edge.float() for edge in bench.task.domain)
    for name, values in one.inputs.items():
        demand(torch.equal(values, again.inputs[name]), "other records from the same stream", "the same")
        inside = bool(((values >= low - 1e-5) & (values <= high + 1e-5)).all())
        demand(inside or name != bench.task.attacked_input, "values beyond the range, or not finite", "ones in range")
    beyond = overstepped(attack, one, view.own, bench.task.domain, bench.task.attacked_input)
    demand(not beyond, beyond, "changes within it")
    changed = any(not torch.equal(one.inputs[n], values) for n, values in view.own.batch().inputs.items())
    changed |= not torch.equal(one.targets, view.own.targets)
    demand(changed, "the records as they were", "altered ones")


def _counts_queries(attack: Attack, bench: Bench) -> None:
    case = _situation(attack, bench)
    early = View(replace(attack.threat, models="before", knows=()), case)
    made = attack.ready(early, rng=Rng(0)) if attack.makes_ready else None
    if made is not None:
        demand(
            made.queries == early.queries, f"{made.queries} queries of {early.queries} made ready", "the view's count"
        )
    view = View(attack.threat, case, case.submission if attack.prepares else made)
    told = attack.observe(view, rng=Rng(0)).queries
    demand(told == view.queries, f"{told} queries of {view.queries}", "the view's own count: queries=view.queries")
    if attack.threat.sees != "weights":
        demand(told > 0, "no queries", "some: without asking the model nothing can be learnt of it")


def _leaves_models(by: Attack | Verifier, bench: Bench) -> None:
    case = _situation(by, bench)
    models = [case.original.model, case.subject.model, *(control.model for control in case.controls)]
    before, states = [copy.deepcopy(model) for model in models], [_state(model) for model in models]
    _scores(by, case)
    demand(all(map(same_weights, before, models)), "changed weights", "the models as they were")
    demand(states == [_state(model) for model in models], "another mode or requires_grad", "the models as they were")


def _state(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()] + [p.requires_grad for p in model.parameters()]


def _scores_again(by: Attack | Verifier, bench: Bench) -> None:
    one, two = (_scores(by, _situation(by, bench)) for _ in range(2))
    demand(len(one.ids) > 0 and bool(one.arrays), "no scores", "a score for one record or more")
    equal = one.ids.tolist() == two.ids.tolist() and one.arrays.keys() == two.arrays.keys()
    equal = equal and all(np.array_equal(one[name], two[name]) for name in one.arrays)
    demand(equal, "other scores from the same stream", "the same")


def _measures_from_scores(by: Attack | Verifier, bench: Bench) -> None:
    scores = _scores(by, _situation(by, bench))
    measures = by.measure(scores)
    demand(bool(measures), "no measures", "at least one")
    for measure in measures:
        finite = bool(np.isfinite([measure.value, measure.low, measure.high]).all())
        inside = measure.low - 1e-9 <= measure.value <= measure.high + 1e-9
        demand(finite and inside, f"{measure}", "a finite value in its interval")
        if measure.name.endswith(SHARES):
            demand(-1e-9 <= measure.value <= 1 + 1e-9, f"{measure.name} = {measure.value}", "a share between 0 and 1")
    again = by.measure(scores_from_bytes(scores_to_bytes(scores)))
    same = [(m.key, m.value) for m in measures] == [(m.key, m.value) for m in again]
    demand(same, "other measures from stored scores", "measures that depend on nothing but the scores")
    if isinstance(by, Attack):
        demand(by.primary in {m.name for m in measures}, f"no measure {by.primary!r}", "the declared primary one")
        bare = [m.name for m in measures if "." not in m.name]
        demand(not bare, f"measures {bare}", "names that begin with the attack's, such as my_attack.accuracy")


def _tells(attack: Attack, bench: Bench) -> None:
    """In one case at least it finds more in the original than in either retrained model, beyond the spread of the records
    and by more than the two differ between themselves. Where all is learnt by heart, there is enough to be found."""
    told, beyond = [], False
    for case in [bench.poisoned(attack)] if attack.prepares else bench.cases:
        positive, one, two = (_found(attack, case, model) for model in (case.original, case.subject, case.controls[0]))
        for high, *lows in zip(positive, one, two, strict=True):
            gaps = [difference(attack.primary, [high], [low]) for low in lows]
            noise = abs(lows[0].value - lows[1].value)
            beyond |= all(gap.low > 0.02 and gap.value > noise for gap in gaps)
            told.append(f"{min(gap.value for gap in gaps):+.3f}")
    got = f"{', '.join(told) or 'nothing'} ({attack.primary}, original minus retrained, in {len(bench.cases)} cases)"
    demand(beyond, got, "clearly more on the original in one case")


def _nothing_where_nothing_is(attack: Attack, bench: Bench) -> None:
    """Of labels that are random, or of what was handed in, a retrained model can know nothing: two of them do not differ, and an
    area under the curve is at chance."""
    case = bench.poisoned(attack) if attack.prepares else bench.learnt_by_heart
    found = [_found(attack, case, model) for model in (case.subject, *case.controls)]
    for one, two in zip(*found, strict=True):
        gap = difference(attack.primary, [one], [two])
        demand(gap.low <= 0.05 and gap.high >= -0.05, f"{gap.value:+.3f} between two retrained models", "no difference")
        if attack.primary.endswith("auc"):
            for area in (one, two):
                demand(area.low <= 0.5 <= area.high, f"{area.name} = {area.value:.3f} of a retrained model", "chance")


def _found(attack: Attack, case: Case, model: Trained) -> list[Measure]:
    """The primary measure on a model in the subject's place, at each budget."""
    measures = attack.measure(_scores(attack, case.of(model, case.target)))
    return [measure for measure in measures if measure.name == attack.primary]


def _models_alone(by: Attack | Verifier, bench: Bench) -> None:
    """An equal model gets equal measures, under another name and as another object too."""
    case = _situation(by, bench)
    twin = case.subject.with_model(copy.deepcopy(case.subject.model))
    measured = [by.measure(_scores(by, each)) for each in (case, case.of(twin, "unlearned"))]
    demand(bool(measured[0]), "no measures", "at least one")
    for one, two in zip(*measured, strict=True):
        same = one.key == two.key and abs(one.value - two.value) < 1e-3
        demand(same, f"{one.name} = {one.value} and {two.value} of equal models", "the same")


def _sees_forgetting(verifier: Verifier, bench: Bench) -> None:
    """In one case a measure's interval on the original lies apart from that on a retrained model."""
    apart = False
    for case in bench.cases:
        here, there = ({m.key: m for m in verifier.measure(_scores(verifier, each))} for each in (
            case, case.of(case.original, "original"),
        ))  # fmt: skip
        apart |= any(here[key].low > m.high or here[key].high < m.low for key, m in there.items() if key in here)
    demand(apart, "the same on the original and on a retrained model", "another number in one case")


def _nothing_between_equals(verifier: Verifier, bench: Bench) -> None:
    """A distance to retrained models is 0 where the subject is one of them."""
    case = bench.cases[0]
    twin = case.controls[0].with_model(copy.deepcopy(case.controls[0].model))
    for measure in verifier.measure(_scores(verifier, case.of(twin, "retrained"))):
        demand(abs(measure.value) < 1e-6, f"{measure.name} = {measure.value}", "0 between two equal models")


def _reads(attack: Attack, bench: Bench) -> None:
    """From the original and the same after one plain step on what is deleted, for each class: more than a placebo gives."""
    known, unknown = _leaks(attack, bench)
    gap = difference(attack.primary, [known], [unknown])
    got = f"{attack.primary} {known.value:.3f}, and {unknown.value:.3f} of records in neither model"
    demand(gap.low > 0, got, "clearly more of the deleted records")


def _placebo_at_chance(attack: Attack, bench: Bench) -> None:
    chance = 1 / len(bench.split.classes) if attack.chance is None else attack.chance
    _, unknown = _leaks(attack, bench)
    got = f"{attack.primary} {unknown.value:.3f} [{unknown.low:.3f}, {unknown.high:.3f}] of records in neither model"
    demand(unknown.low <= chance <= unknown.high, got, f"chance, {chance:.3f}")


def _leaks(attack: Attack, bench: Bench) -> tuple[Measure, Measure]:
    """The primary measure on deletions that tell all, and on their placebos, of the same guesses."""
    parts: list[tuple[Scores, Scores]] = []
    for case in _deletions(attack, bench):
        guess = _guess(attack, case)
        parts.append((attack.score(guess, case), attack.score(guess, placebo(case, stand_ins))))
    known, unknown = (attack.measure(Scores.joined([pair[place] for pair in parts])) for place in range(2))
    first, second = (next(m for m in found if m.name == attack.primary) for found in (known, unknown))
    return first, second


def _guess(attack: Attack, case: Case) -> Guess:
    return attack.run(case, rng=Rng(0))[0]


def _situation(by: Attack | Verifier, bench: Bench) -> Case:
    """What a member is tried on: two models that differ by one record for an attack that compares, a training that it handed
    records in for, else a class forgotten."""
    if isinstance(by, Attack) and by.prepares:
        return bench.poisoned(by)
    return _deletions(by, bench)[0] if isinstance(by, Attack) and by.compares else bench.cases[0]


def _deletions(attack: Attack, bench: Bench) -> tuple[Case, ...]:
    """Single records, or parts of classes for an attack that names classes."""
    return bench.class_deletions if attack.chance is None else bench.deletions


def _scores(by: Attack | Verifier, case: Case) -> Scores:
    return by.run(case, rng=Rng(0))[1] if isinstance(by, Attack) else by.verify(case)


def _units(by: Attack | Verifier, bench: Bench) -> None:
    scores = _scores(by, _situation(by, bench))
    split = bench.split
    known = {*split.train.ids.tolist(), *split.test.ids.tolist(), *split.validation.ids.tolist()}
    if scores.unit == "record":
        strangers = set(scores.ids.tolist()) - known
        demand(not strangers, f"scores of {len(strangers)} unknown records", "ids of the data")
    for name, values in scores.arrays.items():
        demand(values.dtype.kind in "biuf", f"{name} as {values.dtype}", "numbers or truth values, which can be stored")
        demand(bool(np.isfinite(values).all()), f"NaN or infinity in {name}", "finite scores")


JUDGES: Mapping[str, Mapping[str, Check]] = {
    "attacks": {
        "declares its threat model": _declared,
        "leaves models as they are": _leaves_models,
        "hands in records of its own": _hands_in,
        "counts its queries": _counts_queries,
        "scores known records": _units,
        "same stream, same scores": _scores_again,
        "measures depend on the scores alone": _measures_from_scores,
        "equal models, equal measures": _models_alone,
        "finds more in the original than in a retrained model": _tells,
        "finds nothing where there is nothing": _nothing_where_nothing_is,
        "reads a known leak": _reads,
        "is at chance on its placebo": _placebo_at_chance,
    },
    "verifiers": {
        "leaves models as they are": _leaves_models,
        "scores known records": _units,
        "same scores twice": _scores_again,
        "measures depend on the scores alone": _measures_from_scores,
        "equal models, equal measures": _models_alone,
        "tells the original from a retrained model": _sees_forgetting,
        "finds nothing between equal models": _nothing_between_equals,
    },
}

COMPARES, ALONE = "it compares two models", "it reads one model"
ABSENT, SILENT = "it hands in nothing", "it observes nothing"
FEW = "its effect shows over more records than there are here"


def _few(attack: Attack) -> str:
    return FEW * attack.needs_many


OTHERS = "a plain step on the deleted records is not what it reads"
LIMITS: Mapping[str, Applies] = {
    "hands in records of its own": lambda attack: ABSENT * (not attack.prepares),
    "counts its queries": lambda attack: SILENT * ("P3" not in attack.threat.phases),
    "finds more in the original than in a retrained model": lambda attack: COMPARES * attack.compares or _few(attack),
    "finds nothing where there is nothing": lambda attack: COMPARES * attack.compares or _few(attack),
    "reads a known leak": lambda attack: OTHERS if not attack.reads_steps else "" if attack.compares else ALONE,
    "is at chance on its placebo": lambda attack: ALONE * (not attack.compares),
    "finds nothing between equal models": lambda verifier: (
        "" if verifier.needs_control else "it compares with no retrained model"
    ),
}
"""Why a check has nothing to say of some members."""
