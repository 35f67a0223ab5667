"""Beyond the UMA paper: which of its recoveries are memory, and which a suppressed head?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest import presets
from palimpsest.studies._uma import METHODS, SMALL, UA, merged, paper, unlearned
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

PROBE, HELD_OUT, TOLD = (f"linear_probe.{name}" for name in ("forget_recall", "heldout_recall", "auc"))
_CIFAR, _DIGITS = "CIFAR-10", "digits"
_ALIKE = {part: f"{part}, matched on accuracy" for part in (_CIFAR, _DIGITS)}
"""The same models beside controls that forgot as much, unattacked."""


def _attacked(epsilon: float) -> Where:
    return Where(measure=UA, at={"epsilon": epsilon}, times=100.0)


def _recovered(radii: tuple[float, ...]) -> dict[str, Where]:
    return {f"UA {e * 255:g}/255": _attacked(e) for e in radii}


def _columns(radii: tuple[float, ...]) -> dict[str, Where]:
    """What UMA recovers, what of it no control explains, and what the features hold beyond a retrained model's."""
    found = _recovered(radii)
    for e in radii:
        name = f"residual {e * 255:g}/255"
        found[name] = Where(measure="uma.residual_knowledge", at={"epsilon": e}, minus="controls", times=100.0)
    found["area"] = Where(measure="uma.residual_area", minus="controls", times=100.0)
    found["probe, forgotten"] = Where(measure=PROBE, minus="retrained", times=100.0)
    found["probe, never seen"] = Where(measure=HELD_OUT, minus="retrained", times=100.0)
    found["probe, AUC"] = Where(measure=TOLD, minus="retrained")
    return found


_NEAR = {_CIFAR: (1 / 255, 2 / 255), _DIGITS: (2 / 255, 4 / 255)}
"""Radii that claims are about: at wider ones everything is recovered of the controls too (Table 1), which tells nothing apart."""
_RADII = {_CIFAR: (*_NEAR[_CIFAR], 8 / 255), _DIGITS: (*_NEAR[_DIGITS], 8 / 255, 16 / 255)}
_NEAR |= {_ALIKE[part]: radii for part, radii in _NEAR.items()}
_MORE = 0.05
"""Of a difference that is to be called one: between exact equals no sign could ever be decided."""


def _recovers(part: str, name: str) -> Claim:
    method, matched = unlearned(name, part), Where(part, "bias-matched", METHODS[name])
    radii = _NEAR[part]
    told = " and ".join(f"{radius * 255:g}" for radius in radii)
    return Claim(
        f"{part}, {name}: at {told} of 255 UMA recovers on average 5 points or more beyond the bias-matched control"
        f"{' with its accuracy' if part in _ALIKE.values() else ''}, of these models",
        tuple(
            (sign / len(radii), of | Where(measure=UA, at={"epsilon": radius}))
            for radius in radii
            for sign, of in ((1.0, method), (-1.0, matched))
        ),
        above=_MORE,
        fixed=True,
    )


def _beside(part: str) -> dict[str, Where]:
    """Each method and its bias-matched control."""
    found = {}
    for name, method in METHODS.items():
        found[name] = Where(part, "unlearned", method)
        found[f"{name}: bias-matched"] = Where(part, "bias-matched", method)
    return found


def _holds(name: str) -> Claim:
    """On CIFAR-10: on digits a retrained model's features tell the class as well as anything can."""
    return Claim(
        f"{_CIFAR}, {name}: a probe's recall of records of the class that no model saw is 5 points or more above that on a "
        "retrained model's features, of these models",
        (
            (1.0, unlearned(name, _CIFAR) | Where(measure=HELD_OUT)),
            (-1.0, Where(_CIFAR, "retrained", measure=HELD_OUT)),
        ),
        above=_MORE,
        fixed=True,
    )


@dataclass(frozen=True)
class UmaResidual(Study):
    """Table 1's methods, class-wise, with what no bias can fake beside what UMA recovers; CIFAR-10, three seeds, and digits, five.

    Residual knowledge is the attacked forget accuracy minus the retrained or the bias-matched control's, whichever is higher. The
    linear probe is a fresh head on the features, trained on a few test records: its recall of the class minus the same on a
    retrained model's features is what the features kept of the class; its AUC of forgotten against never-seen records of the
    class is memory of single records. Beside the audit's own control, which has the method's median gap, each method is read beside
    one that has its unattacked forget accuracy as well: a method that is ahead of both is not ahead by how a
    control is made. Small: CIFAR-10 with half of the other studies' images, so that three seeds can be had.
    """

    paper = "ours; on the methods of the UMA paper, Table 1"
    about = "which recoveries are memory and which a suppressed head: residual knowledge and linear probes"
    revision = 2
    tables = tuple(
        table
        for part, radii in _RADII.items()
        for table in (
            Table(
                f"{part}: per cent; differences are points",
                {name: unlearned(name, part) for name in METHODS},
                _columns(radii),
            ),
            *(
                Table(f"{of}: UA, per cent", _beside(of), {"unattacked": _attacked(0.0)} | _recovered(radii))
                for of in (part, _ALIKE[part])
            ),
        )
    )
    claims = (*(_recovers(part, name) for part in _NEAR for name in METHODS), *(_holds(name) for name in METHODS))
    notes = (
        "Where both of a method's claims are not held, what UMA recovers is what shifting one bias of a retrained model gives, and "
        "its features hold no more of the class than a retrained model's: a suppressed head, not memory. Not decidable is neither, "
        "and so is a control at its ceiling.",
        "The bias-matched control has the median gap between the class and the best other one in common with the method, not its "
        "unattacked forget accuracy: where its gaps spread more widely it answers with the class more often, attacked or not. The "
        "parts matched on accuracy have it moved on until it answers as many forgotten records rightly as the method does. Where "
        "the method is ahead of the second alone, the two differ in how gaps spread, which is no sign of memory either.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        chosen = {"unlearn": list(METHODS.values()), "verify": ["accuracy", "linear_probe"]}
        digits = presets.read("digits").model_dump(exclude_unset=True, exclude={"about", "scale"})
        small = merged(SMALL, limit=5000, settings={"uma": {"steps": 50, "records": 200}})
        images = small if scale == "small" else paper(_CIFAR)
        radii = {part: {"uma": {"epsilon": radii}} for part, radii in _RADII.items()}
        found = {
            _CIFAR: merged(images, forget=["class=0"], seeds=3, settings=radii[_CIFAR], **chosen),
            _DIGITS: merged(digits, attack=["uma"], seeds=5, threads=2, settings=radii[_DIGITS], **chosen),
        }
        alike: dict[str, Any] = {"verify": ["accuracy"], "settings": {"policy": {"matching": "accuracy"}}}
        return found | {_ALIKE[part]: merged(of, **alike) for part, of in found.items()}
