"""Linear probe: what a fresh linear head can read off the model's features about the forgotten records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from palimpsest.case import Case, halves
from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.measures.auc import auc
from palimpsest.measures.intervals import share, statistic
from palimpsest.models._ensemble import Ensemble
from palimpsest.task import evaluating
from palimpsest.types import Array, Examples, Measure, Scores
from palimpsest.verify.base import Verifier

FORGOTTEN, UNSEEN = 0, 1


@dataclass(frozen=True)
class LinearProbe(Verifier):
    """Alain & Bengio 2016: a logistic regression on the features before the last layer, trained on a few test records per class.

    The model's own head has no part in it: a suppressed bias, or a head trained to say something else, changes nothing here, and
    the bias-matched control reads exactly as the retrained model does. `forget_recall` says how well the features still hold
    the forgotten records' classes, `heldout_recall` the same for never-seen records of these classes; their difference from a
    retrained model's is what the features kept. `auc` tells forgotten from never-seen records by the probe's confidence in their
    class: memory of single records.

    The probe learns from test records, half of them, drawn by id; the other half are the never-seen ones. What a linear head
    cannot read is not measured. Raises BadInput for a model without a linear last layer.
    """

    about = "a fresh linear head on the features: what a suppressed head cannot hide"
    bias_matched = True

    shots: int = setting(50, "records of each class that the probe learns from, at most", source="ours", least=1)
    strength: float = setting(1.0, "inverse strength of the probe's L2 penalty (C)", source="scikit-learn", above=0)
    records: int = setting(1000, "at most this many forgotten, and as many never-seen, records", source="ours", least=1)

    def verify(self, case: Case) -> Scores:
        """Scores per record: `group` (0 forgotten, 1 never seen), `correct`, `confidence` in the true class."""
        taught, unseen = self._parts(case)
        forget = _some(case.forget, self.records)
        model = case.subject.model
        inputs = features(model, taught)
        mean, spread = inputs.mean(0), inputs.std(0) + 1e-6
        probe = LogisticRegression(C=self.strength, max_iter=2000)
        probe.fit((inputs - mean) / spread, taught.targets.cpu().numpy())
        arrays: dict[str, list[Array]] = {"group": [], "correct": [], "confidence": []}
        for group, part in ((FORGOTTEN, forget), (UNSEEN, unseen)):
            if not len(part):
                continue
            posterior = probe.predict_proba((features(model, part) - mean) / spread)
            targets = part.targets.cpu().numpy()
            place = np.searchsorted(probe.classes_, targets)
            arrays["group"].append(np.full(len(part), group))
            arrays["correct"].append(probe.classes_[posterior.argmax(1)] == targets)
            arrays["confidence"].append(posterior[np.arange(len(part)), place])
        ids = np.concatenate([part.ids for part in (forget, unseen) if len(part)])
        return Scores("record", ids, {name: np.concatenate(values) for name, values in arrays.items()})

    def _parts(self, case: Case) -> tuple[Examples, Examples]:
        """Test records that the probe learns from, a few of every class, and never-seen ones of the forgotten classes."""
        test = case.split.test
        first = halves(test, "probe")
        pool, rest = test.take(first), test.take(~first)
        targets = pool.targets.cpu().numpy()
        wanted = np.unique(case.forget.targets.cpu().numpy())
        missing = np.setdiff1d(wanted, targets)
        if len(missing):
            got = f"no test record of class {case.split.classes[int(missing[0])]!r} for the probe to learn from"
            raise BadInput("linear_probe", got=got, expected="some of every forgotten class", do="raise --limit")
        chosen = np.concatenate([np.flatnonzero(targets == c)[: self.shots] for c in np.unique(targets)])
        of_classes = np.isin(rest.targets.cpu().numpy(), wanted)
        return pool.take(np.sort(chosen)), _some(rest.take(of_classes), self.records)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """linear_probe.forget_recall, .heldout_recall, .auc."""
        group, correct, confidence = scores["group"], scores["correct"], scores["confidence"]
        found = [share("linear_probe.forget_recall", correct[group == FORGOTTEN], stream="forget")]
        if (group == UNSEEN).any():
            found.append(share("linear_probe.heldout_recall", correct[group == UNSEEN], stream="heldout"))
            groups = confidence[group == FORGOTTEN], confidence[group == UNSEEN]
            found.append(statistic("linear_probe.auc", auc, *groups, together=True))
        return tuple(found)


@torch.no_grad()
def features(model: nn.Module, examples: Examples, batch_size: int = 512) -> Array:
    """What the model's last linear layer takes, shape (n, d), float64, the model in evaluation mode; of an ensemble, what the last
    layers of all its members that count take.

    Raises BadInput where the model has no linear layer, or does not end in one.
    """
    ensemble = next((module for module in model.modules() if isinstance(module, Ensemble)), None)
    if ensemble is not None:
        counted = (member for member, full in zip(ensemble.members, ensemble.filled.tolist(), strict=True) if full)
        return np.concatenate([features(member, examples, batch_size) for member in counted], axis=1)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise BadInput("linear_probe", got="a model without a linear layer", expected="one that ends in one")
    taken: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0].flatten(1).cpu()))
    try:
        with evaluating(model):
            for batch in examples.batches(batch_size):
                values = batch.inputs
                model(next(iter(values.values()))) if len(values) == 1 else model(**values)
    finally:
        hook.remove()
    found: Array = torch.cat(taken).double().numpy()
    if len(found) != len(examples):
        got = f"{len(found)} rows of features for {len(examples)} records"
        raise BadInput("linear_probe", got=got, expected="a last layer that is used once for each record")
    return found


def _some(examples: Examples, size: int) -> Examples:
    """At most so many records, spread evenly over their order."""
    if len(examples) <= size:
        return examples
    return examples.take(np.linspace(0, len(examples) - 1, size).astype(int))
