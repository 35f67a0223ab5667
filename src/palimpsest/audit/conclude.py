"""From a full board to the record: comparisons, verdicts and warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import product
from typing import Any

from palimpsest.audit import checks, judge
from palimpsest.audit.board import Board
from palimpsest.audit.examine import examiners
from palimpsest.audit.leaks import leak
from palimpsest.audit.plan import Imported, Plan
from palimpsest.audit.residual import residual_knowledge
from palimpsest.audit.stage import Stage, labels
from palimpsest.audit.yardstick import Yardstick
from palimpsest.case import held_out
from palimpsest.catalog import identity, name_of, plain, settings_of
from palimpsest.record import Comparison, LeakRow, Record, Request, VerdictRow, Warning, hardware, versions
from palimpsest.threat import same_weights
from palimpsest.types import Finding, Split


def conclude(
    plan: Plan, split: Split, board: Board, stages: Sequence[Stage], *, command: str, started: str, redacted: bool
) -> Record:
    """The record of an audit whose cells are all on the board."""
    comparisons: list[Comparison] = []
    verdicts: list[VerdictRow] = []
    broken_everywhere: list[str] = []
    leaks: list[LeakRow] = []
    undecided: list[Warning] = []
    homes = list(dict.fromkeys(stage.home.name for stage in stages))
    for index, home in product(sorted({stage.index for stage in stages}), homes):
        mine = [stage for stage in stages if (stage.index, stage.home.name) == (index, home)]
        broken = _broken(board, mine, split, plan.yardstick)
        broken_everywhere += broken
        for label in mine[0].unlearned:
            subject = _subject(label, mine)
            for by in examiners(plan):
                comparisons += judge.compare(board, subject, name_of(by), by in plan.attacks, plan.seeds)
            for attack in plan.attacks:
                comparisons += residual_knowledge(board, subject, attack, plan.seeds)
            found = judge.evidence(board, subject, plan.attacks, plan.seeds, broken, plan.yardstick)
            verdicts.append(judge.verdict(plan.policy, subject, found))
            unknown = mine[0].home.unknown
            leaks += [
                leak(plan.policy, board, subject, attack, plan.seeds)
                for attack in plan.attacks
                if attack.compares and attack.threat.models == "both" and not unknown
            ]
            undecided += [
                checks.warn("not-decisive", f"{read.name}: original and retrained are too close")
                for read in found.readings
                if read.separation is not None and not plan.policy.decisive(read)
            ]
        if home == homes[-1]:
            verdicts += [_skipped(plan, label, index) for label in plan.skipped]
    sizes = _sizes(plan, stages)
    threats = {name_of(attack): attack.threat for attack in plan.attacks}
    warnings = checks.self_checks(board, split, plan.seeds, sizes, broken_everywhere, threats, homes, plan.yardstick)
    warnings += checks.of_verdicts(verdicts)
    if plan.imported:
        warnings += _of_imported(plan.imported, stages[0])
    others = {
        home.name: {
            "learner": identity(home.learner),
            "recipe": identity(home.recipe),
            **({"release": identity(home.release)} if home.release else {}),
        }
        for home in {stage.home.name: stage.home for stage in stages if stage.home.name}.values()
    }
    trained_here = not plan.imported or plan.imported.retrain
    return Record(
        command=command,
        started=started,
        seconds=0.0,
        scale=plan.scale,
        versions=versions(),
        hardware=hardware(plan.device),
        data=_data(split, plan),
        model=_model(plan, stages[0]),
        learner=identity(plan.learner),
        recipe=identity(plan.recipe) if trained_here else None,
        requests=_requests(plan, stages),
        seeds=list(plan.seeds),
        redacted=redacted,
        settings={
            "policy": plain(vars(plan.policy)),
            "controls": plan.controls,
            **({"homes": others} if others else {}),
            **({"search": plain(plan.search)} if plan.search else {}),
            **({"tuned": dict(plan.tuned)} if plan.tuned else {}),
        },
        cells=board.cells,
        comparisons=comparisons,
        verdicts=verdicts,
        leaks=leaks,
        warnings=list({(w.name, w.message): w for w in [*warnings, *undecided]}.values()),
    )


def _of_imported(imported: Imported, stage: Stage) -> list[Warning]:
    """What is not known of weights from elsewhere, and what they are compared with where that is no retrained model of theirs."""
    found = []
    if imported.train_ids is None:
        found.append(checks.warn("training-records-assumed", f"{len(stage.split.train)} records"))
    if imported.retrained is not None:
        return found
    if stage.controls:
        told = f"{len(stage.controls)} trained with the recipe of this audit"
        return [*found, checks.warn("control-from-recipe", told)]
    unseen = len(held_out(stage.split, stage.forgotten))
    stands_in = f"{unseen} unseen records of the same classes stand in" if unseen else "nothing stands in for it"
    return [*found, checks.warn("weaker-control", f"{stands_in}; pass --retrained, or --recipe to train one")]


def _skipped(plan: Plan, label: str, index: int) -> VerdictRow:
    settings, because = settings_of(labels(plan)[label]), [f"not run here: {plan.skipped[label]}"]
    return VerdictRow(unlearner=label, settings=settings, request=index, verdict=Finding.INCONCLUSIVE, because=because)


def _broken(board: Board, mine: Sequence[Stage], split: Split, stick: Yardstick) -> list[str]:
    reasons: list[str] = []
    for stage in mine:
        ids = [control.ids for control in stage.controls]
        class_wise, classes = stage.whole_classes_only and stick.matched, len(split.classes)
        reasons += checks.broken_controls(
            board, [stage.seed], stage.index, ids, stage.forgotten, class_wise, classes, stage.home.name, stick
        )
    return reasons


def _subject(label: str, mine: Sequence[Stage]) -> judge.Subject:
    made = [stage.unlearned[label] for stage in mine]
    failures = [f"seed {stage.seed}: {m}" for stage, m in zip(mine, made, strict=True) if isinstance(m, Exception)]
    alive = [(stage, m) for stage, m in zip(mine, made, strict=True) if not isinstance(m, Exception)]
    identical = bool(alive) and all(same_weights(stage.original.trained.model, m.trained.model) for stage, m in alive)
    class_wise = bool(mine[0].forgotten_classes)
    settings, home = mine[0].settings.get(label, {}), mine[0].home
    defence = mine[0].defence(label)
    return judge.Subject(
        label, settings, mine[0].index, class_wise, home.told, home.name, identical, defence, tuple(failures)
    )


def _data(split: Split, plan: Plan) -> dict[str, Any]:
    return {
        **identity(plan.data),
        "title": split.name,
        "kind": split.kind,
        "shape": list(split.shape),
        "classes": list(split.classes),
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "fingerprint": split.fingerprint,
    }


def _model(plan: Plan, stage: Stage) -> dict[str, Any]:
    count = sum(parameter.numel() for parameter in stage.original.trained.model.parameters())
    return {**identity(plan.model), "parameters": count}


def _sizes(plan: Plan, stages: Sequence[Stage]) -> list[int]:
    """Records of each request, or of all that are separate, per seed."""
    if not plan.separate:
        return [len(stage.requests[-1]) for stage in stages]
    return [sum(len(request.ids) for request in _requests(plan, stages) if request.seed == seed) for seed in plan.seeds]


def _requests(plan: Plan, stages: Sequence[Stage]) -> list[Request]:
    if plan.separate:
        return [_all_of(seed, {s.turn: s for s in stages if s.seed == seed}.values()) for seed in plan.seeds]
    return [
        Request(
            seed=stage.seed,
            index=stage.index,
            selection=stage.requests[-1].selection,
            ids=stage.requests[-1].ids.tolist(),
            classes=list(stage.forgotten_classes),
        )
        for stage in {(stage.seed, stage.index): stage for stage in stages}.values()
    ]


def _all_of(seed: int, stages: Collection[Stage]) -> Request:
    """The separate requests of one seed, as one row."""
    requests = [stage.requests[-1] for stage in stages]
    counts = Counter(request.selection for request in requests)
    told = ", ".join(f"{count} × {text}" if count > 1 else text for text, count in counts.items())
    ids = list(dict.fromkeys(str(name) for request in requests for name in request.ids))
    classes = sorted({int(c) for stage in stages for c in stage.forgotten_classes})
    return Request(seed=seed, index=0, selection=f"{told}, each alone", ids=ids, classes=classes)
