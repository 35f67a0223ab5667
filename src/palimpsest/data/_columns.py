"""What the columns of a table are: the label, record ids, owners, and those to learn from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palimpsest.errors import BadInput, UnknownName
from palimpsest.types import Array, Ids

LABELS = ("label", "labels", "target", "y", "class", "fine_label")
"""Names (in any case) under which a label column is found when none is given."""
_ROW_NUMBERS = re.compile(r"^(|unnamed: 0|__index_level_\d+__|id|idx|index|row_id)$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """An open source: tables by part ("train", and "validation" and "test" where it brings them), all with equal columns.

    prefixes: by part, what record ids begin with that are made of row numbers. class_names: names of the classes, of the
    columns whose type declares them. stamp: what a map of it is known by.
    """

    name: str
    tables: Mapping[str, pa.Table]
    prefixes: Mapping[str, str]
    class_names: Mapping[str, tuple[str, ...]]
    stamp: Any

    @property
    def columns(self) -> list[str]:
        names: list[str] = self.tables["train"].column_names
        return names

    def named(self, setting: str, column: str) -> str:
        """`column`, which the setting names; refused where the source has none of that name."""
        if column not in self.columns:
            raise UnknownName(f"{self.name}: {setting}", got=column, known=self.columns)
        return column


def checked(source: Source) -> Source:
    """The source with its dictionary columns decoded. Refuses empty tables and two columns of one name."""
    for part, table in source.tables.items():
        twice = [column for column in table.column_names if table.column_names.count(column) > 1]
        if twice:
            raise BadInput(f"{source.name}: {part}", got=f"two columns {twice[0]!r}", expected="different names")
        if not table.num_rows:
            raise BadInput(f"{source.name}: {part}", got="no rows", expected="at least one record")
    return replace(source, tables={part: plain(table) for part, table in source.tables.items()})


def plain(table: pa.Table) -> pa.Table:
    """The table with its dictionary-encoded columns as plain values."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table[field.name].cast(field.type.value_type))
    return table


def label_column(source: Source, given: str, setting: str) -> str:
    """The label column: the given one, else the one whose type or name says so."""
    if given:
        return source.named(setting, given)
    candidates = list(source.class_names) or source.columns
    found = (
        candidates if len(candidates) == 1 and source.class_names else [c for c in candidates if c.lower() in LABELS]
    )
    if len(found) == 1:
        return found[0]
    got = (
        "no column that is known as the label"
        if not found
        else f"{len(found)} columns that may be it: {', '.join(found)}"
    )
    expected = f"a label column among {', '.join(source.columns)}"
    raise BadInput(f"{source.name}: label", got=got, expected=expected, do=f"name it with --set {setting}=COLUMN")


def labelled(source: Source, label: str) -> Source:
    """The source without those validation and test tables that have no labels at all, as competitions publish them."""

    def has_labels(table: pa.Table) -> bool:
        if label not in table.column_names or table[label].null_count == table.num_rows:
            return False
        return label not in source.class_names or not pc.all(pc.equal(table[label], -1)).as_py()

    kept = {part: table for part, table in source.tables.items() if part == "train" or has_labels(table)}
    return replace(source, tables=kept)


def targets(source: Source, label: str) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Class numbers by part, each shape (rows,), int64, and the names of the classes.

    Names come from the column's type where it declares them. Else they are the values in the whole source, sorted as numbers
    where all are whole numbers and as text otherwise.
    """
    for part, table in source.tables.items():
        _no_gaps(f"{source.name}: {part}: label column {label!r}", table[label])
    if label in source.class_names:
        names = source.class_names[label]
        numbers = {part: table[label].to_numpy().astype(np.int64) for part, table in source.tables.items()}
        for part, values in numbers.items():
            if values.min() < 0 or values.max() >= len(names):
                bad = int(values.min() if values.min() < 0 else values.max())
                expected = f"class numbers from 0 to {len(names) - 1}"
                raise BadInput(f"{source.name}: {part}: label column {label!r}", got=bad, expected=expected)
        return numbers, names
    texts = {
        part: as_text(f"{source.name}: label column {label!r}", table[label]) for part, table in source.tables.items()
    }
    found = np.unique(np.concatenate(list(texts.values())))
    rows = sum(len(values) for values in texts.values())
    if 2 * len(found) > rows and len(found) > 2:
        got = f"{len(found)} different values in {rows} rows"
        raise BadInput(f"{source.name}: label column {label!r}", got=got, expected="classes", do="name another column")
    whole = all(re.fullmatch(r"-?\d+", value) for value in found)
    names = tuple(sorted(found.tolist(), key=int) if whole else found.tolist())
    place = {value: number for number, value in enumerate(names)}
    return {
        part: np.array([place[v] for v in values.tolist()], dtype=np.int64) for part, values in texts.items()
    }, names


def record_ids(source: Source, given: str, setting: str) -> dict[str, Ids]:
    """Ids by part: the column's values, else `<prefix>/<row of the source>`, so that no limit changes them."""
    if not given:
        return {
            part: np.array([f"{source.prefixes[part]}/{row}" for row in range(table.num_rows)], dtype=np.str_)
            for part, table in source.tables.items()
        }
    ids = names(source, given, setting)
    everyone = np.concatenate(list(ids.values()))
    unique, counts = np.unique(everyone, return_counts=True)
    if len(unique) < len(everyone):
        got, do = (
            f"{str(unique[counts.argmax()])!r} {counts.max()} times",
            f"make the ids unique, or leave {setting} out",
        )
        raise BadInput(f"{source.name}: id column {given!r}", got=got, expected="one id per record", do=do)
    for name in unique.tolist():
        if name != name.strip() or not name or "\n" in name:
            expected = "ids that fit on a line of a text file, without blanks around them"
            raise BadInput(f"{source.name}: id column {given!r}", got=repr(name), expected=expected)
    return ids


def names(source: Source, given: str, setting: str) -> dict[str, Ids]:
    """The values of a column of names (ids or owners) as text, by part."""
    column = source.named(setting, given)
    for part, table in source.tables.items():
        _no_gaps(f"{source.name}: {part}: column {column!r}", table[column])
    return {part: as_text(f"{source.name}: column {column!r}", table[column]) for part, table in source.tables.items()}


def as_text(where: str, column: pa.ChunkedArray) -> Ids:
    """Values as text, shape (rows,): whole numbers without a point, whatever type they are stored as."""
    kind = column.type
    if pa.types.is_floating(kind):
        if not pc.all(pc.and_(pc.is_finite(column), pc.equal(column, pc.round(column)))).as_py():
            raise BadInput(where, got="numbers with fractions", expected="text, whole numbers or true/false")
        column = column.cast(pa.int64())
    elif not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise BadInput(where, got=f"values of type {kind}", expected="text, whole numbers or true/false")
    return np.asarray(column.cast(pa.large_string()).to_pylist(), dtype=np.str_)


def input_columns(source: Source, taken: set[str], given: str, setting: str) -> tuple[str, list[str]]:
    """What the inputs are, "image", "text" or "features", and their columns.

    Given columns are taken as they are named. Else: one image column is the input; failing that, every column that is left,
    without row numbers. A text column that stands alone is text; beside others it is a category.
    """
    schema = source.tables["train"].schema
    if given:
        chosen = [source.named(setting, name.strip()) for name in given.split(",")]
        if both := taken.intersection(chosen):
            got = f"{both.pop()!r}, which is the label, id or owner column"
            raise BadInput(f"{source.name}: {setting}", got=got, expected="columns to learn from")
    else:
        chosen = [name for name in source.columns if name not in taken]
        images = [name for name in chosen if is_image(schema.field(name).type)]
        if len(images) > 1:
            got, do = f"image columns {', '.join(images)}", f"name one with --set {setting}=COLUMN"
            raise BadInput(f"{source.name}: inputs", got=got, expected="one", do=do)
        chosen = images or [name for name in chosen if not _is_row_number(source.tables["train"], name)]
    if not chosen:
        expected, do = "a column to learn from", f"name one with --set {setting}=COLUMN"
        raise BadInput(f"{source.name}: inputs", got="no column beside label, id and owner", expected=expected, do=do)
    kinds = [schema.field(name).type for name in chosen]
    if any(is_image(kind) for kind in kinds):
        if len(chosen) > 1:
            raise BadInput(f"{source.name}: inputs", got=", ".join(chosen), expected="an image column alone")
        return "image", chosen
    if len(chosen) == 1 and is_text(kinds[0]):
        return "text", chosen
    return "features", chosen


def is_image(kind: pa.DataType) -> bool:
    """An image as `datasets` stores it: a struct of the file's bytes and its path."""
    return bool(pa.types.is_struct(kind)) and {field.name for field in kind} == {"bytes", "path"}


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return any(test(kind) for test in (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal))


def _is_row_number(table: pa.Table, name: str) -> bool:
    """A nameless or id-like column of whole numbers, each once: it numbers the rows and says nothing of them."""
    if not _ROW_NUMBERS.match(name) or not pa.types.is_integer(table[name].type):
        return False
    return bool(pc.count_distinct(table[name]).as_py() == table.num_rows)


def _no_gaps(where: str, column: pa.ChunkedArray) -> None:
    missing = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
    if pc.any(missing).as_py():
        row = pc.index(missing, True).as_py()
        raise BadInput(where, got=f"nothing in row {row}", expected="a value in every row", do="fill or drop such rows")
