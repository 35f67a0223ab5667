"""Feature inversion by one who also knows the weights that both models started from, and how many records trained each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage.base import PROVIDER
from palimpsest.attack.leakage.feature_inversion import FeatureInversion, difference
from palimpsest.catalog import name_of
from palimpsest.rng import Rng
from palimpsest.task import as_classification
from palimpsest.threat import View


@dataclass(frozen=True)
class TwoUpdateInversion(FeatureInversion):
    """The form in the inversion paper's public code: −[n(θ − θ₀) − n_r(θ_u − θ₀)] as the deleted records' gradient, inverted at θ₀.

    n records trained the original from θ₀, n_r the model after exact unlearning from the same weights; with one step on all
    records each, the difference is the sum of the deleted records' gradients exactly, however different the two means are.
    Several steps, momentum and batches in another order add what no deletion caused. A stronger attacker than the paper's
    text has, on retrained models above all; everything else is as in `feature_inversion`.
    """

    threat = replace(PROVIDER, knows=("labels", "initial_weights", "counts"))
    paper = "inversion paper, its public code"
    about = "recovers deleted records from two models' updates since the weights that both started from"
    primary = "two_update_inversion.rank"
    reads_steps = False

    def observe(self, view: View, *, rng: Rng) -> Guess:
        task = as_classification(view.task, name_of(self))
        start, before, after = view.before.weights(), view.before.weights(), view.after.weights()
        start.load_state_dict(view.know("initial_weights"))
        deleted, kept = view.know("counts")
        difference(before, after)  # refuses equal weights and models of other shapes
        triples = zip(start.parameters(), before.parameters(), after.parameters(), strict=True)
        wanted = [
            kept * (after.double() - first.double()) - (deleted + kept) * (before.double() - first.double())
            for first, before, after in triples
        ]
        return self.invert(start, task, wanted, view.know("labels"), rng)
