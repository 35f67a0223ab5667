"""Which values a setting takes. Declared once beside the field, checked whenever an object is made, in whatever way."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from palimpsest.errors import BadInput, UnknownName


@dataclass(frozen=True)
class Bounds:
    """Ends of a range of finite numbers; None: no end on that side.

    >>> Bounds(above=0, most=1).told()
    'a finite number above 0 and at most 1'
    """

    least: int | float | None = None
    above: int | float | None = None
    most: int | float | None = None
    below: int | float | None = None

    def allow(self, value: Real) -> bool:
        number = float(value)
        return (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def told(self, whole: bool = False) -> str:
        ends = (("of at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        limits = [f"{word} {end:g}" for word, end in ends if end is not None]
        return " ".join([f"a {'whole' if whole else 'finite'} number", " and ".join(limits)]).strip()


def check(made: Any, name: str) -> None:
    """Raises BadInput for a field whose value is outside its bounds, NaN, or none of its choices. `name` is for the message.

    A field with bounds holds a number, several, or None where its type has None; of the other fields the choices of a
    Literal are checked, and that a float is not NaN.
    """
    hints = typing.get_type_hints(type(made))
    for entry in dataclasses.fields(made):
        if not entry.init:
            continue
        value, hint, label = getattr(made, entry.name), hints[entry.name], f"{name}.{entry.name}"
        bounds = entry.metadata.get("bounds")
        if bounds is not None:
            _check_numbers(value, hint, bounds, label)
        elif typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
            raise UnknownName(label, got=str(value), known=map(str, typing.get_args(hint)))
        elif isinstance(value, float) and math.isnan(value):
            raise BadInput(label, got=value, expected="a number")


def _types(hint: Any) -> set[Any]:
    """Every type that a hint names, however deep: tuple, int and NoneType of `tuple[int, ...] | None`."""
    return {typing.get_origin(hint) or hint}.union(*(_types(part) for part in typing.get_args(hint)))


def _check_numbers(value: Any, hint: Any, bounds: Bounds, label: str) -> None:
    types = _types(hint)
    if value is None and type(None) in types:
        return
    whole, several = int in types and float not in types, tuple in types
    expected = bounds.told(whole) + (", or several" if several else "") + (", or none" if type(None) in types else "")
    values = value if several and isinstance(value, (tuple, list)) else (value,)
    right = all(isinstance(one, Integral if whole else Real) and bounds.allow(one) for one in values)
    if not right or not values:
        raise BadInput(label, got=repr(value), expected=expected)
