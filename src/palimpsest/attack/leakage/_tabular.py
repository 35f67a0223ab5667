"""How near recovered rows of a table come: errors of each feature, and categorical values that are exactly right."""

from __future__ import annotations

import torch
from torch import Tensor

from palimpsest.case import Case
from palimpsest.measures.identification import exactly_recovered
from palimpsest.measures.intervals import mean
from palimpsest.types import Array, Measure, Scores

FEW = 10
"""Values at most that a categorical feature has in the data."""
MANY = 50
"""Features of which each error is a measure of its own."""


def scaled(case: Case, rows: Tensor) -> Tensor:
    """Rows with each feature as a share of its range in the data, in [0, 1] as the inversion paper has them (A); (n, f)."""
    low, high = (bound.float().cpu() for bound in case.task.domain)
    return (rows - low) / (high - low).clamp_min(1e-12)


def arrays_of(case: Case, drawn: Tensor, truth: Tensor) -> dict[str, Array]:
    """Of rows in [0, 1], (n, f): feature_error (n, f), absolute; exact, the share of the categorical features, those of at most
    ten values in the data, whose nearest value is the true one, and exact_by_guess, the same of each feature's most frequent value
    among unseen records. The last two are left out where no feature is categorical."""
    found: dict[str, Array] = {"feature_error": (drawn - truth).abs().double().numpy()}
    name = case.task.attacked_input
    known, tested, unseen = (
        scaled(case, part.batch().inputs[name].float().cpu())
        for part in (case.split.train, case.split.test, case.heldout)
    )
    whole = torch.cat([known, tested])
    values = {column: torch.unique(whole[:, column]) for column in range(drawn.shape[1])}
    levels = {column: several for column, several in values.items() if 2 <= len(several) <= FEW}
    if levels:
        usual = unseen.mode(0).values.expand_as(truth)
        found["exact"] = exactly_recovered(drawn, truth, levels).numpy()
        found["exact_by_guess"] = exactly_recovered(usual, truth, levels).numpy()
    return found


def measures_of(scores: Scores, attack: str) -> list[Measure]:
    """feature_error: mean over features, as a share of their ranges, and of each (at a feature's place); exact_rate, and the same
    by guessing each feature's most frequent value."""
    if "feature_error" not in scores.arrays:
        return []
    errors = scores["feature_error"]
    found = [mean(f"{attack}.feature_error", errors.mean(1))]
    if errors.shape[1] <= MANY:
        found += [
            mean(f"{attack}.feature_error", errors[:, place], at={"feature": float(place)})
            for place in range(errors.shape[1])
        ]
    if "exact" in scores.arrays:
        found.append(mean(f"{attack}.exact_rate", scores["exact"]))
        found.append(mean(f"{attack}.exact_rate_by_guess", scores["exact_by_guess"]))
    return found
