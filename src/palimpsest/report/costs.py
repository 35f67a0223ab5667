"""What the methods cost, beside retraining, and what the audit itself took."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from palimpsest.report.blocks import Block, Entry, Section, Table
from palimpsest.report.numbers import Numbers
from palimpsest.report.wording import examiner, subject

PARTS = {
    "seconds": "Seconds",
    "samples": "Records passed",
    "gradient_evaluations": "Gradient evaluations",
    "peak_memory": "Memory added, MiB",
}


def section(numbers: Numbers) -> Section:
    blocks: list[Block] = [_methods(numbers, request) for request in numbers.requests]
    return Section("costs", "Costs", (*blocks, _audit(numbers)))


def _methods(numbers: Numbers, request: int) -> Table:
    rows = []
    shared = [(target, home) for home in numbers.homes for target in ("original", "retrained")]
    for target, label in [*shared, *(("unlearned", label) for label in numbers.methods(request))]:
        cost = cost_of(numbers, target, label, request)
        retraining = cost_of(numbers, "retrained", numbers.owner("retrained", label), request)
        row = [Entry.of(subject(target, label))]
        for part in PARTS:
            value = cost.get(part, 0.0) / (2**20 if part == "peak_memory" else 1)
            share = (
                _share(value, retraining.get(part, 0.0))
                if part in ("seconds", "samples") and target == "unlearned"
                else ""
            )
            row.append(Entry.of(_number(value) if cost.get("seconds") else "–", share, look="number"))
        rows.append(tuple(row))
    after = f" of request {request + 1}" if len(numbers.requests) > 1 else ""
    note = (
        "Means over seeds. Percentages are of retraining with the same learner. A dash: not measured, as for weights that were "
        "trained elsewhere. Memory is that of the audit's own process: shards that several workers train have none in it."
    )
    return Table(
        ("Model", *PARTS.values()),
        tuple(rows),
        f"Cost of making each model{after}",
        note,
        frozenset(range(len(shared))),
    )


def cost_of(numbers: Numbers, target: str, label: str, request: int) -> Mapping[str, float]:
    """Mean over seeds and replicas; the cells of one model all carry the same cost."""
    models = {
        (cell.seed, cell.replica): cell.cost
        for cell in numbers.record.cells
        if (cell.target, numbers.label(cell), cell.request) == (target, label, request) and cell.cost
    }
    return {part: float(np.mean([cost.get(part, 0.0) for cost in models.values()])) for part in PARTS} if models else {}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value.is_integer() else f"{value:.2f}"


def _share(value: float, whole: float) -> str:
    return f"{value / whole:.1%}" if value > 0 and whole > 0 else ""


def _audit(numbers: Numbers) -> Table:
    seconds: dict[str, list[float]] = {}
    for cell in numbers.record.cells:
        if cell.status == "ok":
            seconds.setdefault(examiner(cell), []).append(cell.seconds)
    rows = tuple(
        (
            Entry.of(name),
            Entry.of(f"{len(spent):,}", look="number"),
            Entry.of(f"{np.mean(spent):.3f}", look="number"),
            Entry.of(f"{np.sum(spent):.1f}", look="number"),
        )
        for name, spent in seconds.items()
    )
    columns = ("Attack or verifier", "Models examined", "Seconds per model", "Seconds in all")
    return Table(columns, rows, "Cost of examining them")
