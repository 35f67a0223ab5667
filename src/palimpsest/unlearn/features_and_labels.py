"""Unlearning of features and labels: a closed-form step from the gradients of records and of what takes their place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.rng import Rng
from palimpsest.task import Classification, Task
from palimpsest.types import Examples, as_float
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.curvature import Curvature, drawn, shift

PASS = 256  # records of which the entries are averaged at once; the result does not depend on it beyond rounding


@dataclass(frozen=True)
class FeaturesAndLabels(Unlearner):
    """θ ← θ − A·(Σ∇ℓ(z̃) − Σ∇ℓ(z)), z the forget records and z̃ what takes their place (after Warnecke et al. 2023, "Machine
    Unlearning of Features and Labels"; details reconstructed). First order: A = τ. Second order: A = (n(C + λI))⁻¹, with C
    the mean curvature over D = D_u ∪ D_r before the change, n = |D|, so that n(C + λI) is the Hessian of Σℓ + nλ/2·‖θ‖².

    `replace` says what z̃ is. nothing: the records go. labels: the same inputs under labels drawn uniformly from all classes,
    the true one included. features: the same records, with the entries named by `features` set to their mean over D_r; where
    every record of D bears the feature, D_u must hold those from which it is to go, and D_r must not be empty.

    What the ids mean: with labels or features the corrected records stay in training, yet the ids of the result drop them, as
    for every unlearner. An audit therefore judges whether the original form of the records is forgotten: it compares with
    retraining on D_r, not on D_r and z̃. A later request does not know of z̃ either.

    At the optimum of Σℓ + nλ/2·‖θ‖² with ℓ convex and damping λ, the second-order step with all records and curvature "exact"
    misses the optimum of the corrected sum by an error that falls with the square of |D_u|/n, once the change is small.
    Records that the model fits are flat and wrong labels for them are steep: softmax regression on digits with λ = 0.01 and
    2.5 % of the records relabelled ends farther off than without the step; more damping helps. For replace "nothing" the
    sum keeps the decay nλ; retraining with the mean loss has (n − |D_u|)λ, and `influence` steps towards that. For other
    losses, for the Gauss–Newton matrix and for the first order it guarantees nothing. The paper certifies a variant that adds
    noise to the training loss; this is not it. The model is in evaluation mode; batch norm's running statistics stay.
    """

    tasks = (Classification.name,)
    aliases = ("Warnecke", "unlearning of features and labels")
    about = "one closed-form step that takes records, their labels or some of their features back"
    paper = "Warnecke et al. 2023"
    deviations = "details reconstructed; ggn by default, as the exact Hessian of a network is indefinite"
    spends = (
        "one gradient of the affected records, and for the second order up to `iterations` products with the "
        "curvature of `samples` records"
    )
    use = "where records stay but a feature or a label of theirs has to go; near a convex optimum"

    order: Literal["first", "second"] = setting(
        "second", "a gradient step of length `rate`, or a solve with the curvature", source="the paper has both"
    )
    replace: Literal["nothing", "labels", "features"] = setting(
        "nothing", "what takes the records' place: nothing, random labels, or means for their `features`", source="ours"
    )
    features: tuple[int, ...] | None = setting(
        None, "positions in the flattened record (0 …), for replace=features; none otherwise", source="ours", least=0
    )
    rate: float = setting(
        1e-4,
        "τ of the first order, for the sum over records; the second order has none",
        source="ours; the paper tunes it for each model",
        search=(1e-6, 1e-1),
        above=0,
    )
    curvature: Literal["exact", "ggn"] = setting(
        "ggn", "the exact Hessian, or generalised Gauss–Newton, which no loss makes indefinite", source="ours; paper: exact"
    )  # fmt: skip
    damping: float = setting(
        0.01,
        "λ, added to the curvature of the mean loss, above 0; the model's weight decay for a convex loss",
        source="ours",
        search=(1e-5, 1.0),
        above=0,
    )
    samples: int | None = setting(
        1000, "records of D, drawn at random, that the curvature is the mean over; none: all", source="ours", least=1
    )
    tolerance: float = setting(1e-6, "relative residual at which conjugate gradients stop", source="ours", above=0)
    iterations: int = setting(1000, "conjugate gradient iterations after which to give up", source="ours", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.replace == "features") != (self.features is not None):
            expected = "positions of features" if self.replace == "features" else "none"
            got = f"{self.features} with replace {self.replace}"
            raise BadInput(
                "features_and_labels.features", got=got, expected=expected, do="set replace=features and name them"
            )

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        model.eval()
        curvature = Curvature(model, trained.task, meter)
        corrected = self.correct(trained.task, retain, forget, rng)
        change = -curvature.gradient_sum(forget)
        if corrected is not None:
            change += curvature.gradient_sum(corrected)
        if self.order == "first":
            shift(model, -self.rate * change)
            return
        everything = Examples.joined([retain, forget])
        step = curvature.solve(
            self.curvature,
            drawn(everything, self.samples, rng.child("curvature")),
            change / len(everything),
            damping=self.damping,
            tolerance=self.tolerance,
            iterations=self.iterations,
        )
        shift(model, -step)

    def correct(self, task: Task, retain: Examples, forget: Examples, rng: Rng) -> Examples | None:
        """What takes the forget records' place, in their order; None for nothing. Random labels come from `rng`."""
        if self.replace == "labels":
            return dataclasses.replace(forget, targets=task.randomise(forget.targets, rng.child("labels").torch()))
        return None if self.features is None else with_means(forget, retain, task.attacked_input, self.features)


def with_means(records: Examples, others: Examples, name: str, features: tuple[int, ...]) -> Examples:
    """The records with these entries of one input, counted in the flattened record, set to their mean over `others`.

    The inputs are floats from then on, pixels in [0, 1], in storage of their own. Raises BadInput for an entry that the record
    does not have, and for inputs that are whole numbers, such as tokens, which have no mean.
    """
    inputs = {each: as_float(records.raw(each)) for each in records.inputs}
    values = inputs[name].flatten(1).clone()  # (n, entries)
    if max(features) >= values.shape[1]:
        got, expected = f"position {max(features)}", f"0 … {values.shape[1] - 1}, the entries of a record"
        raise BadInput("features_and_labels.features", got=got, expected=expected)
    if not values.is_floating_point():
        got = f"{name} as {values.dtype}"
        raise BadInput("features_and_labels.features", got=got, expected="floats or pixels", do="use replace=labels")
    columns = list(features)
    total = torch.zeros(len(columns), dtype=torch.float64, device=values.device)
    for batch in others.batches(PASS):
        total += batch.inputs[name].flatten(1)[:, columns].double().sum(0)
    values[:, columns] = (total / len(others)).to(values.dtype)
    inputs[name] = values.view(inputs[name].shape)
    return dataclasses.replace(records, inputs=inputs, rows=torch.arange(len(records)))
