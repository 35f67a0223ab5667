"""The page as GitHub Markdown; its images lie beside it."""

from __future__ import annotations

import re

from palimpsest.report.blocks import Block, Code, Entry, Gallery, Grid, Page, Paragraph, Table, Terms

ACROSS = 3  # drawings side by side


def render(page: Page, images: str = "figures") -> str:
    """images: folder of the images, relative to the Markdown file."""
    parts = [f"# {escape(page.title)}", *map(escape, page.summary)]
    if page.findings:
        parts.append("\n".join(f"- **{escape(v)}**: {escape(who)}. {escape(why)}" for v, who, why in page.findings))
    for section in page.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_block(block, images) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown and HTML take as it stands, on one line."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*\[\]|~$])", r"\\\1", flat)
    flat = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", flat)
    return re.sub(r"^(\d*)([#+.)-])(?=\s)", r"\1\\\2", flat)  # no heading and no list


def _block(block: Block, images: str) -> str:
    match block:
        case Paragraph():
            return escape(block.text)
        case Table():
            rows = [" | ".join(_entry(cell) for cell in row) for row in block.rows]
            head = " | ".join(map(escape, block.columns))
            lines = [f"**{escape(block.caption)}**", ""] if block.caption else []
            lines += [f"| {head} |", "|" + " --- |" * len(block.columns)]
            lines += [f"| {row} |" for row in rows]
            return "\n".join(lines) + (f"\n\n{escape(block.note)}" if block.note else "")
        case Gallery():
            shown = [
                f"**{escape(figure.title)}**<br>{_image(images, figure.name, figure.alt, 300)}"
                for figure in block.figures
            ]
            return f"{escape(block.caption)}\n\n{_tiles(shown)}"
        case Grid():
            width = max(len(pictures) for _, pictures in block.rows)
            lines = [f"**{escape(block.title)}**", "", "| |" + " |" * width, "|" + " --- |" * (width + 1)]
            for name, pictures in block.rows:
                cells = [
                    _image(images, p.name, p.alt, 96) + (f"<br>{escape(p.below)}" if p.below else "") for p in pictures
                ]
                lines.append(f"| {escape(name)} | {' | '.join(cells)} |")
            return "\n".join(lines)
        case Code():
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
            return f"{fence}\n{block.text}\n{fence}"
        case Terms():
            return "\n".join(f"- **{escape(term)}**: {escape(meaning)}" for term, meaning in block.pairs)


def _entry(cell: Entry) -> str:
    lines = [escape(line) for line in cell.lines]
    if cell.look == "verdict" and lines:
        lines[0] = f"**{lines[0]}**"
    return "<br>".join(lines)


def _tiles(cells: list[str]) -> str:
    """Cells in a table without a heading, a few to a row."""
    across = min(ACROSS, len(cells))
    lines = ["|" + " |" * across, "|" + " --- |" * across]
    for start in range(0, len(cells), across):
        row = cells[start : start + across]
        lines.append(f"| {' | '.join(row + [''] * (across - len(row)))} |")
    return "\n".join(lines)


def _image(folder: str, name: str, alt: str, width: int) -> str:
    words = re.sub(r"[^\w ,.:%-]", lambda found: f"&#{ord(found[0])};", " ".join(alt.split()))
    return f'<img src="{folder}/{name}" width="{width}" alt="{words}">'
