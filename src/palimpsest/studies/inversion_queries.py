"""Beyond the inversion paper: the deleted class, named with fewer queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from palimpsest.studies._inversion import ACCURACY, LABELS, MARGIN, METHODS, at, labels
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

STRATEGIES = {"the paper's probes": "zeroth_order", "random squares": "random_squares"}
_PAPER, _CHEAP = STRATEGIES
_QUERIES = {"to make the probes": at("probe_queries", LABELS), "after unlearning": at("queries", LABELS)}


def _row(strategy: str, kind: str, target: str = "unlearned") -> Where:
    return Where(strategy, target, METHODS[kind])


_ROWS = {f"{kind}, {strategy}": _row(strategy, kind) for kind in METHODS for strategy in STRATEGIES}


@dataclass(frozen=True)
class InversionQueries(Study):
    """Each class deleted whole, ten probes a class, made by the paper's zeroth-order search and by squares of random colour. Not in
    the paper."""

    paper = "beyond the inversion paper: its attack, with other probes"
    about = "which class was deleted, by the paper's probes and by ones that cost fewer queries"
    tables = (
        Table(
            "Each class deleted whole",
            {**_ROWS, **{f"{name}: placebo": replace(where, target="placebo") for name, where in _ROWS.items()}},
            {
                "Acc.": ACCURACY,
                "margin": MARGIN,
                **_QUERIES,
                "probes accepted": at("accepted_rate", LABELS),
            },
        ),
    )
    claims = (
        Claim(
            "approximate: random squares name the class no less often, up to a tenth, of these victims",
            ((1.0, _row(_CHEAP, "approximate") | ACCURACY), (-1.0, _row(_PAPER, "approximate") | ACCURACY)),
            above=-0.1,
            fixed=True,
        ),
        Claim(
            "exact: random squares name the class no less often, up to a tenth, of these victims",
            ((1.0, _row(_CHEAP, "exact") | ACCURACY), (-1.0, _row(_PAPER, "exact") | ACCURACY)),
            above=-0.1,
            fixed=True,
        ),
        Claim(
            "random squares need at most half of the queries",
            tuple(
                (weight, _row(strategy, "approximate") | asked)
                for weight, strategy in ((1.0, _CHEAP), (-0.5, _PAPER))
                for asked in _QUERIES.values()
            ),
            below=0.0,
        ),
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {
            name: labels(
                scale,
                forget=[f"class={c}" for c in range(10)],
                separate=True,
                settings={LABELS: {"strategy": strategy}},
            )
            for name, strategy in STRATEGIES.items()
        }
