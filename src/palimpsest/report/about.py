"""Warnings, what failed, how everything was made, and what the words mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.report.blocks import Block, Code, Entry, Paragraph, Section, Table, Terms
from palimpsest.report.numbers import Numbers
from palimpsest.report.tables import failures, plain
from palimpsest.report.wording import CONTROLS, VERDICTS, count, examiner, settings

MEASURES: Mapping[str, str] = {
    "accuracy": "share of records whose class the model names",
    "uma": "Unlearning Mapping Attack: searches, within a budget ε per pixel, for a perturbation with which the unlearned model "
    "answers as the original did",
    "reconstruction": "quality: how near what a model draws comes to the truth; resemblance: to what the original drew; each "
    "from 0, no nearer than one colour, to 1, the same, over hidden pixels. Recovery rate: the forget set's resemblance as a "
    "share of the retain set's, as two models trained apart draw no record alike",
    "uma_generation": "Unlearning Mapping Attack on models of images: searches, within a budget ε per pixel, for an input from "
    "which the unlearned model draws what the original drew. FID and IS take the named classifier in the Inception network's place",
    "confidence_membership": "a support vector machine, trained on known members and non-members, judges a record by "
    "the model's confidence in its true class",
    "AUC": "probability that a forgotten record looks more like a training record than a held-out one; 0.5 is chance, and far "
    "below 0.5 gives the records away as well",
    "retrain_gap": "distance to retrained models; for a retrained model the distance to the other retrained ones, the noise floor",
    "robust_unlearning": "distance of the answers from the original's: wanted large on the forget set, small on the retain set",
    "relearn_time": "training steps until the forgotten records are known again; fewer than after retraining: something was left",
}


def verifiers(numbers: Numbers) -> Section | None:
    """Every verifier but the accuracies, which have a section of their own."""
    blocks: list[Block] = []
    for name in numbers.verifiers:
        if name == "accuracy":
            continue
        for request in numbers.requests:
            after = f", request {request + 1}" if len(numbers.requests) > 1 else ""
            table = plain(numbers, name, request, numbers.keys(name), f"{name}{after}")
            about = MEASURES.get(name, "")
            blocks.append(
                Table(table.columns, table.rows, table.caption, _sentence(about) if about else "", table.strong)
            )
    return Section("verifiers", "Verifiers", tuple(blocks)) if blocks else None


def failed(numbers: Numbers) -> Section | None:
    table = failures(numbers)
    return Section("failed", "Failed and skipped", (table,)) if table else None


def warnings(numbers: Numbers) -> Section:
    """Each warning with what it was raised for and what it means."""
    if not numbers.record.warnings:
        return Section("warnings", "Warnings", (Paragraph("The audit's checks of itself found nothing."),))
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for warning in numbers.record.warnings:
        grouped.setdefault((warning.name, warning.about, warning.meaning), []).append(warning.message)
    rows = tuple(
        (Entry.of(name, about), Entry(tuple(messages), "list"), Entry.of(meaning))
        for (name, about, meaning), messages in grouped.items()
    )
    caption = count(len(numbers.record.warnings), "warning")
    return Section("warnings", "Warnings", (Table(("Warning", "Raised for", "What it means"), rows, caption),))


def methods(numbers: Numbers) -> Section:
    """What somebody needs to run the same audit again."""
    record = numbers.record
    facts = {
        "Started": f"{record.started}, took {record.seconds:,.0f} s",
        "Scale": record.scale,
        "Seeds": ", ".join(map(str, record.seeds)),
        "Data": _facts(record.data, leave={"classes", "fingerprint"}),
        "Classes": ", ".join(map(str, record.data.get("classes", []))) or "not recorded",
        "Data fingerprint": str(record.data.get("fingerprint", "not recorded")),
        "Model": _facts(record.model),
        "Learner": _facts(record.learner),
        "Trained otherwise": "; ".join(_facts(way["learner"]) for way in record.settings.get("homes", {}).values()),
        "Recipe": _facts(record.recipe, leave={"name"}) if record.recipe else "none: the weights came from elsewhere",
        "Audit": settings({key: value for key, value in record.settings.items() if key not in ("tuned", "homes")}),
        "Hardware": _facts(record.hardware),
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }
    blocks: list[Block] = [Paragraph("The exact command:"), Code(record.command or "(called from Python)")]
    blocks.append(Terms(tuple((name, value) for name, value in facts.items() if value)))
    return Section("methods", "How this was made", (*blocks, _requests(numbers), _settings(numbers)))


def _facts(values: Mapping[str, Any], leave: set[str] | frozenset[str] = frozenset()) -> str:
    rest = settings({key: value for key, value in values.items() if key not in leave})
    return ", ".join(part for part in (str(values.get("name", "")), rest) if part)


def _requests(numbers: Numbers) -> Table:
    names = numbers.record.data.get("classes", [])
    rows = []
    for request in numbers.record.requests:
        whole = [str(names[c]) if 0 <= c < len(names) else str(c) for c in request.classes]
        cells = (
            str(request.index + 1),
            str(request.seed),
            request.selection,
            f"{len(request.ids):,}",
            ", ".join(whole) or "none",
        )
        rows.append(tuple(Entry.of(cell) for cell in cells))
    columns = ("Request", "Seed", "Selection", "Records", "Classes forgotten whole")
    return Table(columns, tuple(rows), "Requests", "The ids themselves are in record.json.")


def _settings(numbers: Numbers) -> Table:
    found: dict[tuple[str, str, str], None] = {}
    for row in numbers.record.verdicts:
        found[("method", row.unlearner, settings(row.settings))] = None
    for cell in numbers.record.cells:
        if cell.target == "unlearned":
            found[("method", cell.unlearner, settings(cell.settings))] = None
    for cell in numbers.record.cells:
        found[("attack" if cell.attack else "verifier", examiner(cell), settings(cell.attack_settings))] = None
    rows = tuple(tuple(Entry.of(part or "no settings") for part in row) for row in found)
    return Table(("Kind", "Name", "Settings"), rows, "Settings")


def glossary(numbers: Numbers) -> Section:
    """One line per word: verdicts, controls, and the measures that occur."""
    used = {*numbers.attacks, *numbers.verifiers}
    words = [(str(verdict), meaning) for verdict, meaning in VERDICTS.items()]
    words += [(name, _sentence(meaning)) for name, meaning in CONTROLS.items()]
    words += [(name, _sentence(meaning)) for name, meaning in MEASURES.items() if name in used or name == "AUC"]
    return Section("glossary", "Words", (Terms(tuple(words)),))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
