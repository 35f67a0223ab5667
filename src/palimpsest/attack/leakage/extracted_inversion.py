"""Feature inversion by a user with two black boxes, who extracts a surrogate of each and inverts their difference."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage.feature_inversion import FeatureInversion, difference
from palimpsest.attack.leakage.label_inference import USER
from palimpsest.case import Case
from palimpsest.catalog import find, name_of, setting
from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter, batch_sizes, drawn
from palimpsest.learn.recipe import Recipe, optimizer, rate
from palimpsest.measures.intervals import mean
from palimpsest.models.base import Model, factory
from palimpsest.rng import Rng
from palimpsest.task import Classification, as_classification
from palimpsest.threat import PosteriorView, View
from palimpsest.types import Examples, Measure, Scores

PASS = 512
"""Records of one forward pass; the answers do not depend on it."""
HALVINGS = 30
"""Times at most that a learning rate is halved."""
TOLD = ("agreement", "explained")


@dataclass(frozen=True)
class ExtractedInversion(FeatureInversion):
    """Hu et al., "Learn What You Want to Unlearn" (S&P 2024), section 8: feature inversion on two extracted surrogates.

    The paper names it as what a user could do, doubts it, and does not run it. Extraction is after Tramèr et al. 2016,
    "Stealing Machine Learning Models via Prediction APIs": both models are asked for their posteriors of records of the same
    distribution, which neither was trained on, and a model of the same architecture, which the user knows, is fitted
    to the original's: to their log-ratios, by which that paper solves for logistic regression, or by KL divergence. From
    there two copies go on, same records in the same order, one to the original's answers, one to the unlearned model's, and
    `feature_inversion` reads their difference. What is still wrong with the first fit cancels in it: all of it in a linear
    model that is fitted to log-ratios, and equal answers leave nothing. The copies go on in evaluation mode, by plain SGD,
    as a step that adapts would bend the difference.

    A query is a record asked of one model: 2·min(`records`, those that there are) in all. `agreement`: share of the records
    on which a surrogate names its model's class, mean over both. `explained`: share of the change of the log-ratios that the
    surrogates' change makes up for, 1 at best, below 0 where it is another change. Both are taken on the fitted records.

    The user is told the labels of the deleted records, or with other `labels` only how many there are. That it fails does
    not prove that nothing leaks: a small change drowns in the error of extraction, above all where answers are rounded, and
    surrogates that answer as their models do may differ in other weights. Nor does it bound a user who makes its queries.

    Raises BadInput for equal answers, fewer than two records, an architecture that does not fit them, a fit that diverges.
    """

    threat = replace(USER, knowledge="K2", knows=("labels", "nonmembers", "architecture"))
    paper = "inversion paper, section 8, User Attack; Tramèr et al. 2016"
    about = "recovers deleted records from posteriors alone, by the difference of two extracted models"
    primary = "extracted_inversion.rank"

    surrogate: str | None = setting(
        None,
        "architecture that is extracted, or my_module:make; none: the model's own, which the user knows",
        source="ours",
    )
    surrogate_width: int | None = setting(None, "width of a named one; none: its default", source="ours", least=1)
    records: int = setting(10_000, "at most this many records, asked of each model", source="ours", least=2)
    fits: Literal["ratios", "posteriors"] = setting(
        "ratios",
        "squared error of the posteriors' log-ratios, or KL divergence",
        source="ratios: after Tramèr et al. 2016, 4.1; posteriors: ours",
    )
    extraction_epochs: int = setting(100, "passes over the records (AdamW) for the first fit", source="ours", least=1)
    extraction_lr: float = setting(0.01, "highest learning rate of the first fit", source="ours", above=0)
    change_epochs: int = setting(20, "passes (SGD) that go on from it, for each model", source="ours", least=1)
    change_lr: float = setting(
        0.05, "their highest learning rate, halved until the change is explained no better", source="ours", above=0
    )
    extraction_batch: int = setting(64, "records a step, of all fits", source="ours", least=1)

    def observe(self, view: View, *, rng: Rng) -> Guess:
        """As `feature_inversion`; info has `agreement` and `explained` too, and gradients count those of the fits."""
        task, records = as_classification(view.task, name_of(self)), self._some(view.know("nonmembers"), rng)
        told = (answers(view.before, records), answers(view.after, records))
        if torch.equal(*told):
            raise BadInput("two models", got="equal answers", expected="a difference: nothing was unlearned here")
        meter = Meter()
        kind = self.architecture or view.know("architecture")
        if kind is None:
            raise BadInput(
                "surrogate", got="a model of no known architecture", expected="one", do="name it: surrogate=…"
            )
        before, after = self.extract(task, kind, records, told, rng=rng.child("surrogates"), meter=meter)
        found = self.invert(before, task, difference(before, after), view.know("labels"), rng.child("inversion"))
        info = {**found.info, **likeness((before, after), task, records, told)}
        return replace(found, info=info, queries=view.queries, gradients=found.gradients + meter.samples)

    def extract(
        self,
        task: Classification,
        kind: Model,
        records: Examples,
        told: tuple[Tensor, Tensor],
        *,
        rng: Rng,
        meter: Meter,
    ) -> tuple[nn.Module, nn.Module]:
        """Surrogates of the original and of the unlearned model, frozen. told: both models' posteriors, (n, k) each."""
        size = self.extraction_batch
        first = Recipe(
            epochs=self.extraction_epochs, batch_size=size, optimizer="adamw", lr=self.extraction_lr, weight_decay=0.0
        )
        start = kind.build(task, rng).to(records.targets.device)
        self._fit(start.train(), task, records, told[0], first, rng.child("first"), meter)
        start.eval()
        both = (told[0] > 0) & (told[1] > 0)
        shown = [one.where(both, 0.0) if self.fits == "ratios" else one for one in told]
        if not bool(torch.isfinite(logits(start, task, records)).all()):
            raise BadInput("surrogate", got="answers that are NaN", expected="finite ones", do="lower extraction_lr")
        found, best = None, -math.inf
        for halvings in range(HALVINGS):
            lr = self.change_lr * 0.5**halvings
            on = Recipe(epochs=self.change_epochs, batch_size=size, lr=lr, weight_decay=0.0, schedule="constant")
            before, after = copy.deepcopy(start), copy.deepcopy(start)
            for model, wanted in zip((before, after), shown, strict=True):
                self._fit(model, task, records, wanted, on, rng.child("change"), meter)
            explained = likeness((before, after), task, records, told)["explained"]
            if explained > best:
                found, best = (before.requires_grad_(False), after.requires_grad_(False)), explained
            elif best > 0:
                break
        if found is None:
            raise BadInput("surrogate", got="fits that diverge", expected="finite answers", do="lower change_lr")
        return found

    @property
    def architecture(self) -> Model | None:
        """The one that is named, if any. Raises BadInput where it has no width, or is none of the catalog."""
        if self.surrogate is None or self.surrogate_width is None:
            return factory(self.surrogate) if self.surrogate else None
        if "width" not in {field.name for field in dataclasses.fields(find("models", self.surrogate))}:
            got = f"{self.surrogate_width} for {self.surrogate}"
            raise BadInput("surrogate_width", got=got, expected="none: it has no width", do="leave it out")
        return factory(self.surrogate, {"width": self.surrogate_width})

    def score(self, guess: Guess, case: Case) -> Scores:
        found = super().score(guess, case)
        extra = {name: np.full(len(found.ids), guess.info[name]) for name in TOLD}
        return replace(found, arrays={**found.arrays, **extra})

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        return (*super().measure(scores), *(mean(f"{name_of(self)}.{name}", scores[name]) for name in TOLD))

    def _some(self, known: Examples, rng: Rng) -> Examples:
        if len(known) < 2:
            got, do = f"{len(known)} that the user may know", "use more test records"
            raise BadInput("records", got=got, expected="two or more", do=do)
        picked = rng.child("records").numpy().permutation(len(known))[: self.records]
        return known.take(np.sort(picked))

    def _fit(
        self, model: nn.Module, task: Classification, records: Examples, told: Tensor, how: Recipe, rng: Rng, meter: Meter
    ) -> None:  # fmt: skip
        """Trains in place, in the mode that the model is in. told: the posteriors to fit, (n, k)."""
        steps, opt = how.epochs * len(batch_sizes(len(records), how.batch_size)), optimizer(model, how)
        passes = (drawn(len(records), how.batch_size, rng.child("epoch", epoch)) for epoch in range(how.epochs))
        with rng.child("dropout").ambient():
            for step, rows in enumerate(rows for order in passes for rows in order):
                for group in opt.param_groups:
                    group["lr"] = rate(how, step, steps)
                outputs = task.outputs(model, records.batch(rows)).float()
                meter.step(self._apart(task, outputs, told[rows.to(told.device)]).mean(), opt, len(rows))

    def _apart(self, task: Classification, outputs: Tensor, told: Tensor) -> Tensor:
        """How far outputs are from posteriors, (n,). An answer of 0 tells no ratio, and is left out."""
        if self.fits == "posteriors":
            return task.divergence(outputs, told)
        return (centred(outputs, told > 0) - ratios(told)).square().mean(1)


def answers(model: PosteriorView, records: Examples) -> Tensor:
    """A black box's posteriors of all records, (n, k), one query a record."""
    return torch.cat([model.posterior(batch) for batch in records.batches(PASS)])


@torch.no_grad()
def logits(model: nn.Module, task: Classification, records: Examples) -> Tensor:
    return torch.cat([task.outputs(model, batch).float() for batch in records.batches(PASS)])


def ratios(posterior: Tensor) -> Tensor:
    """Logarithms of posteriors less their mean in each row, which are the logits less theirs; 0 where a posterior is 0."""
    told = posterior > 0
    return centred(posterior.where(told, 1.0).log(), told)


def centred(values: Tensor, told: Tensor) -> Tensor:
    """Values less the mean of those in their row that are told; 0 for the others."""
    kept = values.where(told, 0.0)
    return (kept - kept.sum(1, keepdim=True) / told.sum(1, keepdim=True).clamp_min(1)).where(told, 0.0)


def likeness(
    surrogates: tuple[nn.Module, nn.Module], task: Classification, records: Examples, told: tuple[Tensor, Tensor]
) -> Mapping[str, float]:
    """`agreement` and `explained` (see `ExtractedInversion`), by name."""
    outputs = [logits(model, task, records) for model in surrogates]
    same = [(z.argmax(1) == p.argmax(1)).double().mean() for z, p in zip(outputs, told, strict=True)]
    both = (told[0] > 0) & (told[1] > 0)
    one, other = (ratios(p.where(both, 0.0)).double() for p in told)
    wanted, made = other - one, centred(outputs[1].double() - outputs[0].double(), both)
    left = (made - wanted).square().sum() / wanted.square().sum().clamp_min(1e-30)
    return {"agreement": float(sum(same)) / 2, "explained": float(1 - left)}
