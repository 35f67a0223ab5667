"""Which class was deleted from, by a user who is answered with labels alone: the attack on the labels-only defence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from palimpsest.attack.base import Guess
from palimpsest.attack.leakage._boundary import boundary
from palimpsest.attack.leakage._labels import LabelGuess
from palimpsest.attack.leakage.label_inference import USER
from palimpsest.catalog import name_of, setting
from palimpsest.rng import Rng
from palimpsest.task import as_classification
from palimpsest.threat import LabelsView, View
from palimpsest.types import Batch


@dataclass(frozen=True)
class LabelOnlyInference(LabelGuess):
    """Label inference where only labels are answered: how far each class's region withdrew.

    The inversion paper expects such an attack (section 9) and gives none; this is ours. Segments are found that cross the boundary
    of each class on the original, from mosaics of random colours, by halving (after HopSkipJump, Chen, Jordan & Wainwright
    2020). After unlearning the same segments are halved anew: a drop is how far the crossing moved towards the inside, as a share
    of the segment, all of it where the inside end is not of the class any more. About ten queries a probe and model; each of the
    `steps` adds fifty labels and more before unlearning.

    Any change of the model moves boundaries, so a drop of one class stands out only where much of it was deleted. One plain step on
    half of a class is no control for it: the boundaries of a linear model move too little to name it. That it fails does not
    prove that labels tell nothing.
    """

    threat = replace(USER, sees="labels")
    paper = "ours; inversion paper, section 9"
    about = "infers the deleted class from how far class boundaries move, from labels alone"
    primary = "label_only_inference.accuracy"
    reads_steps = False
    only_accepted = True

    draws: int = setting(2000, "mosaics asked at most to find starts of each class", source="ours", least=1)
    tolerance: float = setting(
        1e-3, "share of a segment to which a crossing is found", source="ours", above=1e-6, below=1
    )
    steps: int = setting(
        0,
        "steps of HopSkipJump that first bring each crossing nearer to the segment's far end",
        source="ours: none, as they named no class more often",
        least=0,
    )

    def ready(self, view: View, *, rng: Rng) -> Guess:
        task = as_classification(view.task, name_of(self))
        classes = torch.arange(task.classes).repeat_interleave(self.probes)

        def answer(inputs: Tensor) -> Tensor:
            return self._labels(view.before, task.attacked_input, inputs)

        found = boundary(
            answer,
            task.shape,
            classes,
            domain=task.domain,
            rng=rng,
            draws=self.draws,
            tolerance=self.tolerance,
            steps=self.steps,
        )
        inside, deep, beyond = (part.flatten(1).double() for part in (found.inputs, found.deep, found.beyond))
        length = (beyond - deep).square().sum(1).clamp_min(1e-30)
        crossing = ((inside - deep) * (beyond - deep)).sum(1) / length
        tensors = {"deep": found.deep, "beyond": found.beyond, "classes": found.classes, "accepted": found.accepted}
        return Guess({**tensors, "crossing": crossing}, queries=view.queries)

    def drops(self, view: View, made: Guess) -> Tensor:
        """The crossing before minus after, as a share of the segment; 0 for probes that were not accepted."""
        tensors, name = made.tensors, as_classification(view.task, name_of(self)).attacked_input
        deep, beyond, wanted = tensors["deep"], tensors["beyond"], tensors["classes"]
        shape = (-1, *([1] * (deep.dim() - 1)))
        low = torch.zeros(len(deep), device=deep.device)
        high = torch.ones_like(low)
        within = self._labels(view.after, name, deep) == wanted
        for _ in range(max(1, round(-torch.log2(torch.tensor(self.tolerance)).item()))):
            middle = (low + high) / 2
            here = self._labels(view.after, name, deep + middle.view(shape) * (beyond - deep)) == wanted
            low, high = torch.where(here, middle, low), torch.where(here, high, middle)
        after = torch.where(within, low, 0.0).double()
        return torch.where(tensors["accepted"], tensors["crossing"].to(after) - after, 0.0)

    @staticmethod
    def _labels(model: LabelsView, name: str, inputs: Tensor) -> Tensor:
        return model.labels(Batch({name: inputs}, torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)))
