"""UMA with a search that is hard to beat: restarts, inertia, and steps that go by what each record gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from palimpsest.attack.residual.uma import Uma
from palimpsest.catalog import setting


@dataclass(frozen=True)
class UmaStrong(Uma):
    """The Unlearning Mapping Attack with five restarts and APGD's automatic steps (Croce & Hein 2020), on the same loss and budget.

    For use beside the plain attack, so that a method that looks robust is not one that a weak search failed on. Costs up to five
    times the plain attack; records whose answer has come back leave early. Guarantees nothing either: the problem is not convex.
    """

    paper = "UMA paper, section 4; Croce & Hein 2020"
    about = "UMA with restarts, inertia and automatic steps"
    primary = "uma_strong.forget_accuracy"

    restarts: int = setting(5, "descents from fresh noise; the best counts", source="Croce & Hein 2020", least=1)
    step_rule: Literal["constant", "decaying", "cosine", "automatic"] = setting(
        "automatic", "as for uma", source="Croce & Hein 2020"
    )
