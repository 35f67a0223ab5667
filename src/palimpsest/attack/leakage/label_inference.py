"""Which class was deleted from, by a user with two black boxes: the unlearning inversion attack on labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage._labels import LabelGuess
from palimpsest.attack.leakage._probes import Probes, random_squares, zeroth_order
from palimpsest.catalog import name_of, setting
from palimpsest.rng import Rng
from palimpsest.task import as_classification
from palimpsest.threat import ThreatModel, View
from palimpsest.types import Batch

USER = ThreatModel(
    roles=("R3",),
    goals=("G3",),
    knowledge="K3",
    phases=("P3",),
    sees="posterior",
    models="both",
    knows=("class_count",),
)
"""A user of the service before and after unlearning, who is told how many classes were deleted from."""


@dataclass(frozen=True)
class LabelInference(LabelGuess):
    """Hu et al., "Learn What You Want to Unlearn" (S&P 2024), section 3.2.2: whose probes lose confidence lost its records.

    Before unlearning, inputs are made from noise that the original assigns to each class with confidence close to 1, by queries
    alone (zeroth-order optimisation). After it, the same inputs are asked again; the class whose own confidence fell most, on
    average over its probes, is inferred (their Eq. 9 to 11), or the K classes for K deleted ones. `random_squares` makes the
    probes with far fewer queries, and the rest is the same.

    Not accepted probes are used as they are. The answer is a class even where nothing tells: read `accuracy` beside 1/classes
    and `margin`. That it fails does not prove that nothing leaks.
    """

    threat = USER
    paper = "inversion paper, section 3.2.2, Eq. 7 to 11"
    about = "infers the deleted class from how answers to probes change"
    primary = "label_inference.accuracy"
    revision = 3  # a try goes on from the best point of the ones before

    strategy: Literal["zeroth_order", "random_squares"] = setting(
        "zeroth_order",
        "how probes are made: the paper's way, or squares of random colour that raise the confidence",
        source="paper, 5.2",
    )
    threshold: float = setting(
        0.999, "confidence at which a probe is done", source="inversion paper, 5.2", above=0, below=1
    )
    iterations: int = setting(20, "iterations of a try (zeroth_order)", source="the paper's code", least=1)
    tries: int = setting(
        10, "runs of ADAM from the best point so far; of squares, starts from noise", source="the paper's code", least=1
    )
    coordinates: int = setting(
        1024, "coordinates an iteration, two queries each (zeroth_order)", source="the paper's code", least=1
    )
    changes: int = setting(1000, "squares of a try, a query each (random_squares)", source="ours", least=1)

    def ready(self, view: View, *, rng: Rng) -> Guess:
        task = as_classification(view.task, name_of(self))
        classes = torch.arange(task.classes).repeat_interleave(self.probes)

        def answer(inputs: Tensor) -> Tensor:
            batch = Batch(
                {task.attacked_input: inputs}, torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
            )
            posterior: Tensor = view.before.posterior(batch)
            return posterior

        make: Callable[..., Probes] = partial(random_squares, changes=self.changes)
        if self.strategy == "zeroth_order":
            make = partial(zeroth_order, iterations=self.iterations, coordinates=self.coordinates)
        found = make(
            answer, task.shape, classes, domain=task.domain, rng=rng, threshold=self.threshold, tries=self.tries
        )
        tensors = {"inputs": found.inputs, "classes": found.classes, "confidence": found.confidence}
        return Guess({**tensors, "accepted": found.accepted}, queries=view.queries)

    def drops(self, view: View, made: Guess) -> Tensor:
        """Confidence in its class before, minus after."""
        batch = Batch({view.task.attacked_input: made.tensors["inputs"]}, made.tensors["classes"])
        after: Tensor = view.after.posterior(batch).gather(1, batch.targets[:, None]).flatten()
        fell: Tensor = made.tensors["confidence"] - after
        return fell
