"""What Tables 5 and 6 of the UMA paper share: FT and SalUn behind a variational autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.studies._uma import COLUMNS, SMALL, merged, paper
from palimpsest.studies.base import Scale, Table, Where

PART = "CIFAR-10"
BARE = {"FT": Where(PART, "unlearned", "finetune"), "SalUn": Where(PART, "unlearned", "salun")}
KNOWN = {name: Where(PART, "unlearned", f"{where.method}+purification") for name, where in BARE.items()}
UNKNOWN = {name: Where(PART, "unlearned", f"{where.method}+purification (unknown)") for name, where in BARE.items()}

PRINTED_BARE = {
    "FT (Table 1)": (92.21, 22.20, 0.0928, 99.96, 0.9934, 100, 0.9892),
    "SalUn (Table 1)": (92.18, 0, 0.0002, 6.04, 0.0292, 32.58, 0.1986),
}


def table(title: str, served: Mapping[str, Where], printed: Mapping[str, Sequence[float | int]]) -> Table:
    """Without and with the purifier, and the controls with it. printed: the paper's row without TA, which it does not print."""
    rows = {f"{name} (Table 1)": where for name, where in BARE.items()}
    for name, where in served.items():
        rows[f"{name}+vae"] = where
        rows[f"{name}+vae: bias-matched"] = Where(PART, "bias-matched", where.method)
    rows["retrain+vae"] = Where(PART, "retrained", next(iter(served.values())).method)
    numbers = {f"{name}+vae": (None, *row) for name, row in printed.items()}
    return Table(title, rows, COLUMNS, {**PRINTED_BARE, **numbers})


def parts(scale: Scale) -> Mapping[str, Mapping[str, Any]]:
    base = SMALL if scale == "small" else paper("CIFAR-10")
    return {PART: merged(base, forget=["class=0"], unlearn=["finetune", "salun"], defend=["purification"])}
