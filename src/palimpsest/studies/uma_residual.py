"""Beyond the UMA paper: which of its recoveries are memory, and which a suppressed head?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest import presets
from palimpsest.studies._uma import EPSILONS, METHODS, SMALL, forget_accuracy, merged, paper, unlearned
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

PROBE, HELD_OUT, TOLD = (f"linear_probe.{name}" for name in ("forget_recall", "heldout_recall", "auc"))
_CIFAR, _DIGITS = "CIFAR-10", "digits"


def _columns(radii: tuple[float, ...]) -> dict[str, Where]:
    """What UMA recovers, what of it no control explains, and what the features hold beyond a retrained model's."""
    found = {f"UA {e * 255:g}/255": Where(measure="uma.forget_accuracy", at={"epsilon": e}, times=100.0) for e in radii}
    for e in radii:
        name = f"residual {e * 255:g}/255"
        found[name] = Where(measure="uma.residual_knowledge", at={"epsilon": e}, minus="controls", times=100.0)
    found["area"] = Where(measure="uma.residual_area", minus="controls", times=100.0)
    found["probe, forgotten"] = Where(measure=PROBE, minus="retrained", times=100.0)
    found["probe, never seen"] = Where(measure=HELD_OUT, minus="retrained", times=100.0)
    found["probe, AUC"] = Where(measure=TOLD, minus="retrained")
    return found


_RADII = {_CIFAR: EPSILONS, _DIGITS: (8 / 255, 16 / 255, 32 / 255)}
_RETRAINED = Where(_CIFAR, "retrained")


@dataclass(frozen=True)
class UmaResidual(Study):
    """Table 1's methods, class-wise, with what a bias cannot fake beside what UMA recovers.

    Residual knowledge is the attacked forget accuracy minus the retrained or the bias-matched control's, whichever is higher. The
    linear probe is a fresh head on the features, trained on a few test records: its recall of the class minus the same on a
    retrained model's features is what the features kept of the class; its AUC of forgotten against never-seen records of the
    class is memory of single records.
    """

    paper = "ours; on the methods of the UMA paper, Table 1"
    about = "which recoveries are memory and which a suppressed head: residual knowledge and linear probes"
    tables = tuple(
        Table(
            f"{part}: per cent; differences are points",
            {name: unlearned(name, part) for name in METHODS},
            _columns(radii),
        )
        for part, radii in _RADII.items()
    )
    claims = tuple(
        claim
        for name in METHODS
        for claim in (
            Claim(
                f"{name}: UMA at 8/255 recovers more than from the bias-matched control",
                (
                    (1.0, forget_accuracy(8, unlearned(name, _CIFAR))),
                    (-1.0, forget_accuracy(8, Where(_CIFAR, "bias-matched", METHODS[name]))),
                ),
                above=0.0,
            ),
            Claim(
                f"{name}: a probe reads the class off its features better than off a retrained model's",
                (
                    (1.0, unlearned(name, _CIFAR) | Where(measure=PROBE)),
                    (-1.0, _RETRAINED | Where(measure=PROBE)),
                ),
                above=0.0,
            ),
        )
    )
    notes = (
        "Where both of a method's claims are not held, what UMA recovers is what shifting one bias of a retrained model gives, and "
        "its features hold no more of the class than a retrained model's: a suppressed head, not memory. Not decidable is neither.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        chosen = {"unlearn": list(METHODS.values()), "verify": ["accuracy", "linear_probe"]}
        digits = presets.read("digits").model_dump(exclude_unset=True, exclude={"about", "scale"})
        images = merged(SMALL, forget=["class=0"], **chosen) if scale == "small" else merged(paper(_CIFAR), **chosen)
        return {_CIFAR: images, _DIGITS: merged(digits, **{**chosen, "attack": ["uma"], "seeds": 5, "threads": 2})}
