"""Labels only: the service says which class, and nothing of how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from palimpsest.defend.base import OutputRelease


@dataclass(frozen=True)
class LabelsOnly(OutputRelease):
    """Answers with the class of the highest posterior alone (inversion paper, section 9).

    The model's weights are not altered, and neither is its accuracy. Guarantees nothing: where a label flips still tells how
    posteriors moved, to an attacker who asks near the boundary (`label_only_inference`).
    """

    weakens = "label_inference"
    paper = "inversion paper, section 9"
    about = "answers with the class alone"

    def answers(self, posterior: Tensor) -> Tensor:
        return F.one_hot(posterior.argmax(1), posterior.shape[1]).to(posterior)
