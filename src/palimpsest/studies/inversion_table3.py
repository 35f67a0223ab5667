"""Table 3 of the inversion paper: which class was deleted from, for every class, share and number of probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from palimpsest.studies._inversion import ACCURACY, LABELS, METHODS, at, by_class, labels
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

_SHARES = (0.1, 0.5, 1.0)
_NAMED = {
    (10, "approximate", 0.1): (0, 9, 2, 3, 4, 5, 6, 7, 8, 9),
    (10, "approximate", 0.5): (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (10, "approximate", 1.0): (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (10, "exact", 0.1): (1, 1, 4, 3, 4, 4, 4, 8, 4, 4),
    (10, "exact", 0.5): (0, 1, 2, 3, 4, 0, 6, 4, 4, 9),
    (10, "exact", 1.0): (0, 1, 2, 3, 4, 7, 6, 7, 8, 9),
    (5, "approximate", 0.1): (2, 9, 2, 3, 4, 5, 6, 7, 8, 9),
    (5, "approximate", 0.5): (0, 6, 2, 3, 4, 5, 6, 7, 8, 9),
    (5, "approximate", 1.0): (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (5, "exact", 0.1): (4, 4, 4, 0, 4, 3, 4, 4, 4, 4),
    (5, "exact", 0.5): (0, 9, 4, 3, 4, 3, 6, 7, 3, 9),
    (5, "exact", 1.0): (0, 1, 2, 3, 4, 4, 6, 7, 4, 9),
}
"""(probes of a class, kind of unlearning, p_u) → the class that the paper's attack names where class 0, 1, … was deleted from."""
_ACCURACY = {
    (10, "approximate"): (0.9, 1.0, 1.0),
    (10, "exact"): (0.3, 0.7, 0.9),
    (5, "approximate"): (0.8, 0.9, 1.0),
    (5, "exact"): (0.1, 0.6, 0.8),
}
"""What the paper prints as accuracy, for each p_u."""
ALL_RIGHT = 0.75
"""What fifty right answers of fifty lie above, at the level of all claims together."""


def _part(probes: int, share: float) -> str:
    return f"{probes} probes, p_u {share:g}"


def _row(probes: int, kind: str, share: float) -> str:
    return f"{probes} probes, {kind}, p_u {share:g}"


def _where(probes: int, kind: str, share: float) -> Where:
    return Where(_part(probes, share), "unlearned", METHODS[kind])


_RIGHT = {f"class {c}": replace(ACCURACY, at={"class": float(c)}) for c in range(10)}
_COLUMNS = {"Acc.": ACCURACY, **_RIGHT}
_ROWS = {_row(*key): _where(*key) for key in _NAMED}
_PRINTED = {
    _row(probes, kind, share): (
        _ACCURACY[probes, kind][_SHARES.index(share)],
        *(float(named == c) for c, named in enumerate(answers)),
    )
    for (probes, kind, share), answers in _NAMED.items()
}
_CONTROLS = {f"{_row(*key)}: placebo": replace(_where(*key), target="placebo") for key in _NAMED if key[2] == 1.0}
_QUERIES = {
    _part(probes, share): Where(_part(probes, share), "unlearned", METHODS["approximate"])
    for probes in (10, 5)
    for share in _SHARES
}


def _said(kind: str) -> str:
    lines = [f"{_row(*key)}: {' '.join(map(str, answers))}" for key, answers in _NAMED.items() if key[1] == kind]
    return f"Classes that the paper's attack names where class 0 to 9 was deleted from. {'; '.join(lines)}."


@dataclass(frozen=True)
class InversionTable3(Study):
    """A tenth, a half and all records of each class in turn deleted, exactly and by a single gradient; 10 and 5 probes a class.

    Each class is a request of its own. A class's column is 1 where it was named, 0 where another was; over seeds, the share. The
    placebo asks the same of classes drawn at random: one in ten is right by chance.
    """

    paper = "inversion paper, Table 3"
    about = "which class was deleted from: every class, share and number of probes"
    tables = (
        Table("Table 3", _ROWS, _COLUMNS, _PRINTED),
        Table("Placebo", _CONTROLS, {"Acc.": ACCURACY}),
        Table(
            "Queries",
            _QUERIES,
            {
                "to make the probes": at("probe_queries", LABELS),
                "after unlearning": at("queries", LABELS),
                "probes accepted": at("accepted_rate", LABELS),
            },
        ),
    )
    claims = (
        *(
            Claim(
                f"approximate, all of a class, {probes} probes: 10 of 10 classes are named, and more than 3 of 4 by the interval",
                by_class(_where(probes, "approximate", 1.0)),
                above=ALL_RIGHT,
                printed=1.0,
            )
            for probes in (10, 5)
        ),
        *(
            Claim(
                f"p_u {share:g}, 10 probes: exact unlearning gives less away",
                (*by_class(_where(10, "approximate", share)), *by_class(_where(10, "exact", share), -1.0)),
                above=0.0,
                printed=printed,
            )
            for share, printed in ((0.1, 0.6), (0.5, 0.3))
        ),
        Claim(
            "exact, all of a class, 10 probes: named more often than by chance",
            by_class(_where(10, "exact", 1.0)),
            above=0.1,
            printed=0.9,
        ),
    )
    notes = (
        _said("approximate"),
        _said("exact"),
        "Appendix C says that exact deletion of five records gives classes 3 and 4 away; by the table it is 1, 3 and 4.",
        "A probe asks at most 1 + tries · iterations · (2 · coordinates + 1) queries: of digits, which have 64 values, "
        "1 + 10 · 20 · 129 = 25,801, and of STL-10, 1,024 coordinates at a time, 409,801. One that is not accepted by then is used "
        "as it is.",
        "That 10 of 10 are named in each of five victims, the claims' common interval bears out to more than three of four.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {
            _part(probes, share): labels(
                scale,
                forget=[f"class={c}" if share == 1 else f"class={c}:{share:g}" for c in range(10)],
                separate=True,
                settings={LABELS: {"probes": probes}},
            )
            for probes in (10, 5)
            for share in _SHARES
        }
