"""Default against tuned settings, where the audit's settings came from `palimpsest tune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.report.blocks import Entry, Section, Table
from palimpsest.report.numbers import Numbers
from palimpsest.report.wording import settings, title

NOTE = (
    "Gap: sum of the absolute differences from retraining of retain, forget and validation accuracy and of the share called "
    "members, mean over tuning seeds. Those seeds and their forget sets are others than the ones reported here, and test records "
    "were not looked at. Default: the settings given, as far as the budget for one run allows."
)


def section(numbers: Numbers) -> Section | None:
    found: Mapping[str, Mapping[str, Any]] = numbers.record.settings.get("tuned", {})
    if not found:
        return None
    rows = tuple(
        (
            Entry.of(label),
            _tried(told.get("default", {})),
            _tried(told.get("tuned", {})),
            Entry.of(str(told.get("trials", "–")), _failed(told), look="number"),
            Entry.of(str(told.get("seeds", "–")), look="number"),
            Entry.of(f"{told.get('share', 0):.0%}", look="number"),
        )
        for label, told in found.items()
    )
    columns = ("Method", "Default, within the budget", "Tuned", "Trials", "Tuning seeds", "At most, of training")
    return Section("tuned", "Default against tuned", (Table(columns, rows, "Gap to retraining", NOTE),))


def _tried(told: Mapping[str, Any]) -> Entry:
    if not told.get("gap"):
        return Entry.of("failed", told.get("reason", ""), look="failed")
    parts = ", ".join(f"{title(name)} {value:.3f}" for name, value in told["gap"].items())
    return Entry.of(f"{sum(told['gap'].values()):.3f}", parts, settings(told["settings"]), look="list")


def _failed(told: Mapping[str, Any]) -> str:
    return f"{told['failed']} failed" if told.get("failed") else ""
