"""A method's settings, searched as part of the audit: each value is tried, the least error on validation records decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from palimpsest.audit.failures import FAILURES
from palimpsest.audit.workshop import Made, Workshop
from palimpsest.case import classes_gone
from palimpsest.defend.base import Guarded
from palimpsest.errors import StoreError
from palimpsest.rng import Rng
from palimpsest.types import Examples, Split
from palimpsest.unlearn.base import Unlearner

Values = Mapping[str, Sequence[Any]]
"""Field of a method → what is to be tried of it."""


def variants(unlearner: Unlearner, values: Values) -> list[Unlearner]:
    """The method with every combination of these values; with none, the method. A guarded one stays behind its guard.

    Raises BadInput for a value that the method refuses.
    """
    if not values:
        return [unlearner]
    if isinstance(unlearner, Guarded):
        return [replace(unlearner, unlearner=one) for one in variants(unlearner.unlearner, values)]
    return [replace(unlearner, **dict(zip(values, chosen, strict=True))) for chosen in product(*values.values())]


def best(
    shop: Workshop,
    tried: Sequence[Unlearner],
    before: Made,
    retain: Examples,
    forget: Examples,
    validation: Examples,
    rng: Rng,
) -> tuple[Made, Unlearner]:
    """The model of least error on the validation records, of equals the first, and the method with the settings that made it.

    What a search alone can see: neither test records nor the forget set decide. Each is tried with the same stream, and kept. A
    setting that fails loses to any that does not; where all fail, the last failure is raised. Of one alone nothing is measured.
    """
    if len(tried) == 1:
        return shop.unlearn(tried[0], before, retain, forget, rng), tried[0]
    found: list[tuple[float, Made, Unlearner]] = []
    failure: Exception | None = None
    for one in tried:
        try:
            made = shop.unlearn(one, before, retain, forget, rng)
            found.append((shop.error(made, validation), made, one))
            made.unload()
        except StoreError:  # a full disk is no fault of the method
            raise
        except FAILURES as error:
            failure = error
    if not found and failure is not None:
        raise failure
    _, made, one = min(found, key=lambda each: each[0])
    return made, one


def deciding(split: Split, forgotten: set[str]) -> Examples:
    """The validation records that a search may look at: those of classes that are not forgotten whole."""
    gone = set(classes_gone(split, forgotten))
    kept = [int(target) not in gone for target in split.validation.targets.tolist()]
    return split.validation.take([place for place, stays in enumerate(kept) if stays])
