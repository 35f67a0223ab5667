"""What a report is made of, before it becomes HTML or Markdown. All text here is plain and not to be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Entry:
    """One table cell: a main line and smaller lines below it.

    look: "text", "number", "verdict", "list" (all lines alike), "failed", or "minor" for a row that belongs to the one above.
    """

    lines: tuple[str, ...]
    look: str = "text"

    @staticmethod
    def of(*lines: str, look: str = "text") -> Entry:
        return Entry(tuple(line for line in lines if line), look)


@dataclass(frozen=True)
class Paragraph:
    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Table:
    """The first column names the row. `strong`: places of rows to set apart (controls that belong to all methods)."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    caption: str = ""
    note: str = ""
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A drawing. name: its file name without folder. title stands above it, alt says it in words."""

    name: str
    title: str
    png: bytes = field(repr=False)
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Drawings side by side, all of the same kind."""

    kind: ClassVar[str] = "gallery"
    figures: tuple[Figure, ...]
    caption: str


@dataclass(frozen=True)
class Picture:
    """One record's image with the words below it."""

    name: str
    png: bytes = field(repr=False)
    alt: str
    below: str


@dataclass(frozen=True)
class Grid:
    """Images in rows that have a name each; a column is a record."""

    kind: ClassVar[str] = "grid"
    title: str
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]


@dataclass(frozen=True)
class Code:
    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Terms:
    """Words and what they mean, or names and values."""

    kind: ClassVar[str] = "terms"
    pairs: tuple[tuple[str, str], ...]


Block = Paragraph | Table | Gallery | Grid | Code | Terms


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """findings: verdict, methods that it fell on, what it means."""

    title: str
    summary: tuple[str, ...]
    findings: tuple[tuple[str, str, str], ...]
    sections: tuple[Section, ...]

    def files(self) -> dict[str, bytes]:
        """File name → content of every drawing and image."""
        found: dict[str, bytes] = {}
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Gallery):
                    found.update({figure.name: figure.png for figure in block.figures})
                if isinstance(block, Grid):
                    found.update({picture.name: picture.png for _, row in block.rows for picture in row})
        return found
