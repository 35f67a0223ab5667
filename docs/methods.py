"""Writes methods.md from the catalog. Run: make docs"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from palimpsest.catalog import document, members
from palimpsest.report import wording

HEAD = """# Unlearning methods

Written from the code by `make docs`; `palimpsest show NAME` prints one of them. What a method costs on one's own data, and how far
it comes from retraining, is in the report of every audit.

"""


def page() -> str:
    found = dict(sorted(members("unlearners").items()))
    rows = [
        f"| [{name}](#{name}) | {', '.join(cls.aliases)} | {cls.guarantee} | {cls.about} |"
        for name, cls in found.items()
    ]
    table = ["| method | also called | guarantee | what it does |", "|---|---|---|---|", *rows]
    return HEAD + "\n".join(table) + "\n\n" + "\n".join(section(name, cls) for name, cls in found.items())


def section(name: str, cls: type) -> str:
    told = re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(cls.__doc__ or ""))
    facts = {
        "Paper": cls.paper,
        "Guarantee": {"exact": "exact", "certified": "certified, with the budget in its settings"}.get(
            cls.guarantee, "none"
        ),
        "Needs the learner": f"`{cls.needs}`" if cls.needs else "",
        "Needs of the recipe": ", ".join(f"{key}={value}" for key, value in cls.needs_recipe.items()),
        "Deviations": cls.deviations or "none known",
        "Cost": cls.spends,
        "When": cls.use,
    }
    lines = [f"## {name}", "", escaped(told), ""]
    lines += [
        f"- **{key}**: {escaped(value) if key != 'Needs the learner' else value}"
        for key, value in facts.items()
        if value
    ]
    rows = document(cls)
    if rows:
        lines += ["", "| setting | default | meaning | source |", "|---|---|---|---|"]
    for row in rows:
        default = wording.set_to(row["default"], row["name"] in wording.RADII)
        lines.append(f"| `{row['name']}` | {escaped(default)} | {escaped(row['doc'])} | {escaped(row['source'])} |")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text whose signs Markdown would take for its own; what stands between backticks is code already."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_|<>\[\]])", r"\\\1", part) for part in parts)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
