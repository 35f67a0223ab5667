"""The audit audits itself: named warnings, and the faults that make every verdict inconclusive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np

from palimpsest.audit.board import Board
from palimpsest.audit.judge import described
from palimpsest.audit.released import UNKNOWN
from palimpsest.audit.yardstick import ACCURACY, Yardstick
from palimpsest.measures.intervals import LEVEL, combination
from palimpsest.record import VerdictRow, Warning
from palimpsest.threat import ThreatModel
from palimpsest.types import Finding, Ids, Measure, Split

MEANINGS: Mapping[str, tuple[str, str]] = {
    "control-out-of-range": (
        "a retrained control knows forgotten records that it should never have seen",
        "The negative control is contaminated or mislabelled, so nothing can be read against it: every verdict is inconclusive.",
    ),
    "base-accuracy-near-chance": (
        "the original model's test accuracy is close to guessing",
        "A model that learnt little has little to forget. Train it better before reading anything into this audit.",
    ),
    "failed-cell": (
        "a method, an attack or a verifier failed",
        "Its row is in the record with its reason and without numbers. Verdicts that need it are inconclusive.",
    ),
    "over-forgotten": (
        "a method lost more than retraining does",
        "Test accuracy collapsed, or the forgotten records are known less than never-seen ones: that too gives them away.",
    ),
    "not-applied": (
        "a method left the forget accuracy where it was",
        "At these settings it did not forget; this is no evidence about what the method can do. Tune it first.",
    ),
    "not-decisive": (
        "an attack cannot tell the original from a retrained model",
        "Its control is at its ceiling (or its original at the floor), so its numbers say nothing about any method here.",
    ),
    "attack-weaker-than-its-own-larger-epsilon": (
        "an attack succeeds less often with a larger budget",
        "A larger budget contains the smaller one, so the search failed: raise steps or restarts, or suspect masked gradients.",
    ),
    "black-box-beats-white-box": (
        "an attack that sees less does better on the same measure",
        "The stronger view should never lose: the white-box attack is mis-set, or its gradients are masked.",
    ),
    "transfer-beats-white-box": (
        "inputs found on the original alone do better than an attack on the unlearned model's own weights",
        "The attack on the model itself should never lose: it is mis-set, or the model's gradients are masked.",
    ),
    "harder-search-finds-more": (
        "one attack on the model's weights finds clearly more than another at the same radius",
        "What the weaker search did not find is no evidence of robustness: read the stronger one's numbers.",
    ),
    "few-records": (
        "fewer than 30 records were forgotten",
        "Intervals are wide and shares are coarse. Forget more records, or use more seeds.",
    ),
    "single-seed": (
        "only one seed was run",
        "The intervals cover the records, not the luck of training. Use three seeds or more before publishing.",
    ),
    "training-records-assumed": (
        "imported weights came without --train-ids",
        "All training records of the data set are taken as theirs. If that is wrong, members and non-members are mixed up.",
    ),
    "weaker-control": (
        "no retrained control was given",
        "Records never trained on stand in for it. They catch memory of single records, not of a forgotten class.",
    ),
    "control-from-recipe": (
        "the retrained control of imported weights was trained here",
        "It is a fair control only if the recipe is that of the imported weights: compare its test accuracy with theirs.",
    ),
    "more-records-than-gradient": (
        "more was deleted at once than the weights can tell apart",
        "All deleted records together have more values than the model has weights, so no search can separate them: what was "
        "recovered is a mixture at best. Delete fewer records a request.",
    ),
}
"""Name → (raised if, what it means)."""


def warn(name: str, message: str) -> Warning:
    about, meaning = MEANINGS[name]
    return Warning(name=name, about=about, message=message, meaning=meaning)


def broken_controls(
    board: Board,
    seeds: Sequence[int],
    request: int,
    trained_ids: Sequence[Ids],
    forgotten: set[str],
    class_wise: bool,
    classes: int,
    home: str = "",
    stick: Yardstick = ACCURACY,
) -> list[str]:
    """Reasons why the retrained controls cannot be trusted."""
    reasons = []
    for ids in trained_ids:
        seen = forgotten.intersection(ids.tolist())
        if seen:
            reasons.append(f"a retrained control was trained on {len(seen)} of the {len(forgotten)} records to forget")
            break
    chance = 1.0 / classes
    for seed in seeds:
        controls = board.replicas(stick.by, (stick.known, ()), "retrained", [seed], home, request)[0]
        held = board.series(stick.by, (stick.unseen, ()), "retrained", [seed], home, request)
        for control in controls:
            if class_wise and control.low > chance:
                reasons.append(
                    f"seed {seed}: a control that never saw the class names {control.value:.1%} of it (chance {chance:.1%})"
                )
            elif not class_wise and held and _beyond(control, held[0]):
                told = f"{control.value:.1%} of the forgotten records but {held[0].value:.1%} of unseen ones"
                reasons.append(f"seed {seed}: a control knows {told}")
    return list(dict.fromkeys(reasons))


def _beyond(control: Measure, unseen: Measure) -> bool:
    """Whether the control does better on forgotten than on unseen records by more than sampling explains.

    Both are unseen for an honest control; five standard errors leave room for many seeds and for shifted test sets."""
    if control.replicates is None or unseen.replicates is None:
        return False
    spread = float(np.hypot(control.replicates.std(), unseen.replicates.std()))
    return control.value - unseen.value > max(0.05, 5 * spread)


def self_checks(
    board: Board,
    split: Split,
    seeds: Sequence[int],
    request_sizes: Sequence[int],
    broken: Sequence[str],
    threats: Mapping[str, ThreatModel],
    homes: Sequence[str] = ("",),
    stick: Yardstick = ACCURACY,
) -> list[Warning]:
    """Warnings about the audit as a whole. threats: attack's name → its threat model. homes: labels of shared controls."""
    found = [warn("control-out-of-range", reason) for reason in broken]
    chance = max(np.bincount(split.test.targets.cpu().numpy())) / len(split.test) if stick is ACCURACY else 0.0
    for seed, home in product(seeds, homes):
        base = board.series(stick.by, (stick.test, ()), "original", [seed], home)
        if base and base[0].low < chance + 0.05:
            who = f"seed {seed}, learner {home}" if home else f"seed {seed}"
            told = f"{who}: {stick.test.replace('_', ' ')} {base[0].value:.1%}, guessing gives {chance:.1%}"
            found.append(warn("base-accuracy-near-chance", told))
    for cell in board.cells:
        if cell.status == "failed":
            what = cell.attack or cell.verifier
            found.append(
                warn("failed-cell", f"{cell.unlearner or cell.target}, seed {cell.seed}, {what}: {cell.reason}")
            )
    if len(seeds) == 1:
        found.append(warn("single-seed", f"seed {seeds[0]}"))
    if min(request_sizes) < 30:
        found.append(warn("few-records", f"{min(request_sizes)} records"))
    found += inseparable(board) + weaker_than_larger_epsilon(board, threats)
    return found + beaten_by_less(board, threats) + beaten_by_harder(board, threats)


def inseparable(board: Board) -> list[Warning]:
    """Deletions whose records outnumber the weights that an inversion goes by."""
    keyed = [(cell, board.scores[str(cell.scores)]) for cell in board.cells if cell.status == "ok" and cell.attack]
    return [
        warn("more-records-than-gradient", f"{cell.unlearner or cell.target}, seed {cell.seed}, {cell.attack}")
        for cell, scores in keyed
        if "separable" in scores.arrays and not scores["separable"].all()
    ]


def weaker_than_larger_epsilon(board: Board, threats: Mapping[str, ThreatModel] | None = None) -> list[Warning]:
    """Not of attacks that search on another model than the subject: for these a larger radius may honestly do worse."""
    found = []
    for place, measures in board.measures.items():
        threat = (threats or {}).get(place.by)
        if place.label.endswith(UNKNOWN) or (threat is not None and threat.models == "before"):
            continue
        curves: dict[str, list[Measure]] = {}
        for measure in measures.values():
            drawn = measure.name.endswith("forget_resemblance") and measure.at.get("epsilon", 0.0) > 0
            if "epsilon" in measure.at and (drawn or measure.name.endswith("forget_accuracy")):
                curves.setdefault(measure.name, []).append(measure)
        for curve in curves.values():
            curve.sort(key=lambda m: m.at["epsilon"])
            pairs = list(combinations(curve, 2))
            for small, large in pairs:
                # the same records at both radii: paired, and so that all pairs hold together
                gap = combination("", [(1.0, [large]), (-1.0, [small])], level=1 - (1 - LEVEL) / len(pairs))
                if gap.high < 0:
                    at = f"{described(small.key)} {small.value:.1%}, {described(large.key)} {large.value:.1%}"
                    found.append(
                        warn(
                            "attack-weaker-than-its-own-larger-epsilon",
                            f"{place.label or place.target} ({place.target}), seed {place.seed}: {at}",
                        )
                    )
                    break
    return found


SUCCESS = ("forget_accuracy", "forget_resemblance")
"""Measures of which more is more success, whatever the attack's own aim."""


def beaten_by_less(board: Board, threats: Mapping[str, ThreatModel]) -> list[Warning]:
    """Same-named measures (after the attack's prefix), at the same radius where they have one: an attack on the subject's weights
    should not lose to one that sees its answers only, nor to one that sees another model only."""
    found, strong = [], _on_weights(threats)
    for less in board.measures:
        threat = threats.get(less.by)
        if threat is None or less.by in strong or less.label.endswith(UNKNOWN):
            continue
        name = "transfer-beats-white-box" if threat.sees == "weights" else "black-box-beats-white-box"
        for by in strong:
            there = board.measures.get(replace(less, by=by), {})
            for measure in board.measures[less].values():
                short = measure.name.split(".", 1)[-1]
                if short not in SUCCESS and (short != "mia_member_rate" or measure.at):
                    continue
                same = [m for m in there.values() if m.name.split(".", 1)[-1] == short]
                rivals = [m for m in same if not measure.at or m.at == measure.at]
                if rivals and measure.low > max(rival.high for rival in rivals):
                    best = max(rival.value for rival in rivals)
                    what = f"{described(measure.key)} {measure.value:.1%} against {best:.1%} by {by}"
                    found.append(warn(name, f"{less.label or less.target}, seed {less.seed}: {what}"))
    return found


def _on_weights(threats: Mapping[str, ThreatModel]) -> list[str]:
    """Attacks that search on the subject's own weights."""
    return [name for name, threat in threats.items() if threat.sees == "weights" and threat.models != "before"]


def beaten_by_harder(board: Board, threats: Mapping[str, ThreatModel]) -> list[Warning]:
    """Of two searches on the subject's weights for the same thing, at the same radius, the one that finds clearly less."""
    found, strong = [], _on_weights(threats)
    for place, measures in board.measures.items():
        if place.by not in strong or place.label.endswith(UNKNOWN):
            continue
        for by in (name for name in strong if name != place.by):
            there = board.measures.get(replace(place, by=by), {})
            for measure in measures.values():
                short = measure.name.split(".", 1)[-1]
                other = there.get((f"{by}.{short}", *measure.key[1:]))
                if short in SUCCESS and other is not None and other.low > measure.high:
                    what = f"{described(measure.key)} {measure.value:.1%} against {other.value:.1%} by {by}"
                    told = f"{place.label or place.target} ({place.target}), seed {place.seed}: {what}"
                    found.append(warn("harder-search-finds-more", told))
    return found


def of_verdicts(verdicts: Sequence[VerdictRow]) -> list[Warning]:
    """Verdicts that call for a second look at the settings."""
    named = {Finding.OVER_FORGOTTEN: "over-forgotten", Finding.NOT_APPLIED: "not-applied"}
    return [
        warn(named[row.verdict], f"{row.unlearner}: {'; '.join(row.because)}")
        for row in verdicts
        if row.verdict in named
    ]
