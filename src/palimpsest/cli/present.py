"""What the command line shows: tables of the catalog, a page on one thing, verdicts, a store's contents."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from palimpsest import catalog
from palimpsest.attack.base import Attack
from palimpsest.audit.policy import Policy
from palimpsest.errors import BadInput, UnknownName
from palimpsest.learn.recipe import Recipe
from palimpsest.record import Record, Warning
from palimpsest.report import wording
from palimpsest.store import Entry
from palimpsest.threat import GOALS, KNOWLEDGE, PHASES, ROLES, ThreatModel
from palimpsest.types import Finding, Leak

COLOURS = {Finding.FORGOTTEN: "green", Finding.RESIDUAL: "red", Finding.OVER_FORGOTTEN: "red"}
"""Of a verdict; the others are yellow."""
OTHERS: dict[str, type] = {"recipe": Recipe, "policy": Policy}
"""What takes settings and is in no folder of the catalog."""


def console(stderr: bool = False) -> Console:
    """A console that takes text as it is; where nobody watches, lines are as long as tables need."""
    made = Console(stderr=stderr, markup=False, highlight=False)
    if not made.is_terminal:
        made.width = 160
    return made


def members(kind: str) -> Table:
    """Everything of one kind: name, aliases, what it is, and its guarantee or threat model."""
    last = {"unlearners": "guarantee", "attacks": "threat", "learners": ""}.get(kind, "")
    table = Table(title=kind, title_justify="left", box=None, pad_edge=False)
    for column in ("name", "also called", "about", *([last] if last else [])):
        table.add_column(column, no_wrap=column == "name")
    for name, cls in sorted(catalog.members(kind).items()):
        name = name.replace("_", "-") if kind == "studies" else name
        row = [name, ", ".join(getattr(cls, "aliases", ())), getattr(cls, "about", "")]
        if last == "guarantee":
            row.append(str(getattr(cls, "guarantee", "")))
        elif last == "threat" and issubclass(cls, Attack):
            row.append(codes(cls.threat))
        table.add_row(*row)
    if not table.row_count:
        table.add_row("(none yet)")
    return table


def located(name: str) -> tuple[str, Any]:
    """Kind and class behind a name, an alias or `my_module:MyClass`; a model may be a function that returns one."""
    if ":" in name:
        found = catalog.load(name)
        if inspect.isclass(found) and getattr(found, "kind", None) in catalog.FOLDERS:
            return str(found.kind), found  # type: ignore[attr-defined]
        if isinstance(found, torch.nn.Module) or not callable(found):
            expected = (
                "a class derived from a base of this package, or a function or class that returns a torch.nn.Module"
            )
            raise BadInput(name, got=type(found).__name__, expected=expected)
        return "models, if it returns a torch.nn.Module", found
    known: dict[str, tuple[str, type]] = {other: ("settings", cls) for other, cls in OTHERS.items()}
    for kind in catalog.FOLDERS:
        for member, cls in catalog.members(kind).items():
            known[member.replace("_", "-") if kind == "studies" else member] = (kind, cls)
            for alias in getattr(cls, "aliases", ()):
                known.setdefault(alias, (kind, cls))
    by_case = {key.lower(): key for key in known}
    for way in (name.lower(), name.lower().replace("_", "-")):
        if name not in known and way in by_case:
            name = by_case[way]
    if name not in known:
        raise UnknownName("name", got=name, known=known, do="see `palimpsest list`")
    return known[name]


def page(name: str) -> RenderableType:
    """All that there is to say of one thing: what it does and does not guarantee, its source, threat model and settings."""
    kind, cls = located(name)
    label = name if ":" in name else catalog.name_of(cls)
    parts: list[RenderableType] = [Text(f"{label} ({kind})", style="bold")]
    for label, value in (
        ("also called", ", ".join(getattr(cls, "aliases", ()))),
        ("paper", getattr(cls, "paper", "")),
        ("guarantee", getattr(cls, "guarantee", "")),
        ("needs the learner", getattr(cls, "needs", "")),
        ("deviations", getattr(cls, "deviations", "")),
        ("cost", getattr(cls, "spends", "")),
        ("when", getattr(cls, "use", "")),
        ("needs of the recipe", ", ".join(f"{key}={value}" for key, value in getattr(cls, "needs_recipe", {}).items())),
        ("for the model", getattr(cls, "for_model", "")),
        ("primary measure", getattr(cls, "primary", "")),
    ):
        if value:
            parts.append(Text(f"{label}: {value}"))
    if isinstance(getattr(cls, "threat", None), ThreatModel):
        parts += [Text(line) for line in in_words(cls.threat)]
    parts.append(Text("\n" + inspect.cleandoc(cls.__doc__ or "(not documented)") + "\n"))
    return Group(*parts, settings(cls))


def settings(cls: Any) -> RenderableType:
    """Fields of a class with type, default, meaning and where the default comes from."""
    rows = catalog.document(cls) if dataclasses.is_dataclass(cls) and inspect.isclass(cls) else []
    if not rows:
        return Text("no settings")
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "type", "default", "meaning", "source"):
        table.add_column(column, no_wrap=column == "setting")
    for row in rows:
        default = wording.set_to(row["default"], row["name"] in wording.RADII)
        table.add_row(row["name"], row["type"], default, row["doc"], row["source"])
    return table


def codes(threat: ThreatModel) -> str:
    """R3 G3 K3 P3."""
    return " ".join((*threat.roles, *threat.goals, threat.knowledge, *threat.phases))


def in_words(threat: ThreatModel) -> list[str]:
    """The threat model as sentences."""

    def named(values: Iterable[str], words: Any) -> str:
        return ", ".join(words[value] if words[value] == value else f"{words[value]} ({value})" for value in values)

    when = {"before": "before unlearning", "after": "after unlearning", "both": "before and after unlearning"}
    seen = {"labels": "labels", "posterior": "posteriors", "weights": "weights"}[threat.sees]
    return [
        f"adversary: {named(threat.roles, ROLES)}; goal: {named(threat.goals, GOALS)}",
        f"knowledge: {named([threat.knowledge], KNOWLEDGE)}; acts in phase: {named(threat.phases, PHASES)}",
        f"sees: {seen} of the model {when[threat.models]}; knows besides: {', '.join(threat.knows) or 'nothing'}",
    ]


def verdicts(record: Record, verbose: bool = False) -> Table:
    """Verdict of each method with its first reason (all of them where `verbose`)."""
    several = len({row.request for row in record.verdicts}) > 1
    table = Table(title="Verdicts", title_justify="left", box=None, pad_edge=False)
    for column in ("method", *(["request"] if several else []), "verdict", "because"):
        table.add_column(column, no_wrap=column in ("method", "verdict"))
    for row in record.verdicts:
        reasons = row.because if verbose else row.because[:1]
        more = f" (and {len(row.because) - 1} more)" if len(row.because) > len(reasons) else ""
        request = [str(row.request + 1)] if several else []
        verdict = Text(row.verdict, style=COLOURS.get(row.verdict, "yellow"))
        table.add_row(row.unlearner, *request, verdict, "\n".join(reasons) + more)
    return table


def leaks(record: Record) -> Table | None:
    """What attacks that compare two models say of each method's deletions; None where there are none."""
    if not record.leaks:
        return None
    several = len({row.request for row in record.leaks}) > 1
    table = Table(title="What deletions give away", title_justify="left", box=None, pad_edge=False)
    for column in ("method", *(["request"] if several else []), "attack", "says", "because"):
        table.add_column(column, no_wrap=column != "because")
    for row in record.leaks:
        request = [str(row.request + 1)] if several else []
        says = Text(row.state, style={Leak.LEAKED: "red", Leak.NOT_LEAKED: "green"}.get(row.state, "yellow"))
        table.add_row(row.unlearner, *request, row.attack, says, "; ".join(row.because))
    return table


def warnings(raised: Sequence[Warning], verbose: bool = False) -> list[str]:
    """One line per warning's name; with its meaning and every message where `verbose`."""
    grouped: dict[str, list[str]] = {}
    meanings = {warning.name: warning.meaning for warning in raised}
    for warning in raised:
        grouped.setdefault(warning.name, []).append(warning.message)
    lines = []
    for name, messages in grouped.items():
        shown = messages if verbose else messages[:1]
        more = f" (and {len(messages) - 1} more)" if len(messages) > len(shown) else ""
        lines.append(f"warning {name}: {'; '.join(shown)}{more}" + (f". {meanings[name]}" if verbose else ""))
    return lines


def entries(found: Iterable[Entry]) -> Table:
    """Artifacts of a store."""
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "key", "bytes", "what"):
        table.add_column(column, justify="right" if column == "bytes" else "left", no_wrap=column != "what")
    for entry in found:
        table.add_row(entry.kind, entry.key[:12], f"{entry.bytes:,}", _what(entry))
    return table


def _what(entry: Entry) -> str:
    """Who made an artifact, as far as its manifest says."""
    made_by = [entry.spec[part] for part in ("unlearner", "learner", "attack", "verifier") if part in entry.spec]
    seed = entry.spec.get("seed", "")
    path = "/".join(map(str, seed)) if isinstance(seed, list) else str(seed)
    names = [str(part.get("name", "")) for part in made_by if isinstance(part, dict)]
    return " ".join([*names, f"seed {path}" if path else ""]).strip() or "(unreadable)"
