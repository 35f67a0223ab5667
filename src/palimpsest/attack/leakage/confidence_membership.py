"""Membership inference by a support vector machine on the confidence in the true class: the "MIA" of the UMA paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from palimpsest.attack.base import Attack, Guess
from palimpsest.case import Case
from palimpsest.catalog import setting
from palimpsest.language import Language
from palimpsest.measures.auc import auc
from palimpsest.measures.intervals import share, statistic
from palimpsest.measures.membership import svc_called_member
from palimpsest.measures.tpr_at_fpr import tpr_at_fpr
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.threat import LabelsView, ThreatModel, View
from palimpsest.types import Array, Examples, Measure, Scores


@dataclass(frozen=True)
class ConfidenceMembership(Attack):
    """Is a record a training record, judged by the model's confidence in its true class?

    The attacker knows some members (retain records) and non-members (test records) with their labels, fits SVC(C=3, RBF,
    gamma auto) on their confidences (the public code behind SalUn and the UMA paper; the papers do not print the SVC),
    and judges candidates: the forgotten records and, not told apart, held-out records of the same classes.

    `mia_member_rate` is the share of forgotten records called members (the UMA paper's MIA: original about 0.98, lower after
    unlearning). It confounds memory with class: a model that cannot name a class at all calls nobody of it a member, and one that
    names it confidently calls held-out records members too. `auc` and `tpr_at_1pct_fpr` compare the forgotten with the
    held-out records of the same classes and do not have that fault. None of these bounds what a stronger
    attacker (LiRA, RMIA) would find.
    """

    revision = 3  # candidates come unmarked, and none of them, nor a stand-in of theirs, is a known non-member
    threat = ThreatModel(
        roles=("R3",),
        goals=("G3",),
        knowledge="K3",
        phases=("P3",),
        sees="posterior",
        models="after",
        knows=("candidates", "members", "nonmembers"),
    )
    paper = "UMA paper, section 5.1 (after Shokri et al. 2017 and SalUn's code)"
    about = "SVC on the true-class confidence, on forgotten and on held-out records"
    tasks = (Classification.name, Language.name)
    primary = "confidence_membership.auc"

    references: int = setting(
        1000, "at most this many known members, and as many non-members", source="ours; the papers: all", least=1
    )

    def observe(self, view: View, *, rng: Rng) -> Guess:
        candidates, members, nonmembers = (view.know(name) for name in ("candidates", "members", "nonmembers"))
        size = min(self.references, len(members), len(nonmembers))
        members = _some(members, size, rng.child("members"))
        nonmembers = _some(nonmembers, size, rng.child("nonmembers"))
        parts = {"candidates": candidates, "members": members, "nonmembers": nonmembers}
        found = {name: confidence(view.after, part) for name, part in parts.items()}
        called = svc_called_member(found["members"], found["nonmembers"], found["candidates"])
        return Guess(
            {**{name: torch.from_numpy(values) for name, values in found.items()}, "called": torch.from_numpy(called)},
            {name: part.ids.tolist() for name, part in parts.items()},
            queries=view.queries,
        )

    def score(self, guess: Guess, case: Case) -> Scores:
        """`group`: 0 forgotten, 1 held out of the same classes, 2 known member, 3 known non-member."""
        kinds = ("candidates", "members", "nonmembers")
        ids = np.asarray([name for kind in kinds for name in guess.info[kind]], dtype=np.str_)
        groups = np.repeat([1, 2, 3], [len(guess.info[kind]) for kind in kinds])
        groups[(groups == 1) & np.isin(ids, case.forget.ids)] = 0
        called = np.full(len(ids), -1)
        called[groups < 2] = guess.tensors["called"].numpy()
        confidences = np.concatenate([guess.tensors[kind].numpy() for kind in kinds])
        return Scores("record", ids, {"group": groups, "confidence": confidences, "called_member": called})

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        group, confidences = scores["group"], scores["confidence"]
        forgotten, heldout = confidences[group == 0], confidences[group == 1]
        name = "confidence_membership"
        found = [share(f"{name}.mia_member_rate", scores["called_member"][group == 0])]
        if len(heldout):
            found += [
                share(f"{name}.mia_heldout_member_rate", scores["called_member"][group == 1], stream="heldout"),
                statistic(f"{name}.auc", auc, forgotten, heldout, together=True),
                statistic(f"{name}.tpr_at_1pct_fpr", tpr_at_fpr, forgotten, heldout, together=True),
            ]
        return tuple(found)


def confidence(model: LabelsView, examples: Examples, batch_size: int = 512) -> Array:
    """The model's posterior of each record's true class, shape (n,); one query per record."""
    parts = [
        model.posterior(batch).gather(1, batch.targets[:, None]).flatten().cpu()
        for batch in examples.batches(batch_size)
    ]
    values: Array = torch.cat(parts).numpy() if parts else np.zeros(0, dtype=np.float32)
    return values


def _some(examples: Examples, size: int, rng: Rng) -> Examples:
    return examples.take(np.sort(rng.numpy().permutation(len(examples))[:size]))
