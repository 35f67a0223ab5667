"""The order of the report."""

from __future__ import annotations

from pathlib import Path

from palimpsest import record as records
from palimpsest.report import about, attacks, costs, grid, leaks, sequence, tuned, verdicts
from palimpsest.report.blocks import Page, Paragraph, Section
from palimpsest.report.numbers import Numbers
from palimpsest.report.tables import accuracies


def compose(folder: Path) -> Page:
    """The report of the record in a folder. Raises BadInput where there is none, or it cannot be read."""
    numbers = Numbers(records.read(folder), folder)
    sections = [
        verdicts.section(numbers),
        leaks.section(numbers),
        _accuracies(numbers) if "accuracy" in numbers.verifiers or not numbers.verifiers else None,
        sequence.section(numbers),
        *(attacks.section(numbers, attack) for attack in numbers.attacks),
        grid.section(numbers),
        about.verifiers(numbers),
        costs.section(numbers),
        tuned.section(numbers),
        about.failed(numbers),
        about.warnings(numbers),
        about.methods(numbers),
        about.glossary(numbers),
    ]
    return Page(
        verdicts.headline(numbers),
        verdicts.summary(numbers),
        verdicts.findings(numbers),
        tuple(s for s in sections if s is not None),
    )


def _accuracies(numbers: Numbers) -> Section:
    tables = [table for request in numbers.requests if (table := accuracies(numbers, request))]
    return Section("accuracies", "Accuracies", tuple(tables) or (Paragraph("The audit measured no accuracies."),))
