"""How inputs are read from tables: images, text and features. A reader decodes any rows, so that only those wanted are."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from palimpsest.data._columns import Source, is_image, is_number, is_text
from palimpsest.errors import BadInput
from palimpsest.types import Array, Ids

Picks = list[tuple[str, Array]]
"""Rows to read, in the order of the base storage: (part of the source, rows in its table)."""


@dataclass(frozen=True)
class Reader(ABC):
    """Decodes rows of a source. `shape`: one record's. `context`: what is told of the inputs beside their values."""

    source: Source
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def row_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def decode(self, part: str, rows: Array, ids: Ids) -> Array:
        """Values of these rows (ascending), shape (rows, *shape). `ids`, of all rows of the part, are for error messages."""


def few(table: pa.Table, rows: Array) -> pa.Table:
    """These rows (ascending). Arrow takes from a short slice much faster than from a long table."""
    first = int(rows[0])
    return table.slice(first, int(rows[-1]) - first + 1).take(pa.array(rows - first)).combine_chunks()


# Images


@dataclass(frozen=True)
class ImageReader(Reader):
    """uint8 images, shape (channels, height, width)."""

    column: str = ""
    mode: str = "RGB"

    def decode(self, part: str, rows: Array, ids: Ids) -> Array:
        column = self.source.tables[part][self.column]
        out = np.empty((len(rows), *self.shape), dtype=np.uint8)
        _, height, width = self.shape
        for index, row in enumerate(rows.tolist()):
            where = f"{self.source.name}: image of record {str(ids[row])!r}"
            picture = _opened(where, column[row].as_py())
            try:
                picture = _upright(picture).convert(self.mode)
            except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for broken pixels
                raise BadInput(where, got=error, expected="a whole image", do="replace or drop it") from None
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture)
            out[index] = pixels[None] if self.mode == "L" else pixels.transpose(2, 0, 1)
        return out


def image_reader(
    source: Source, column: str, picks: Picks, ids: dict[str, Ids], size: int | None, setting: str
) -> Reader:
    """Looks at the heads of the images to be read: grey if all of them are grey, else RGB; all of one size, or `size`.

    Transparency is dropped, palettes and other colour spaces become RGB.
    """
    grey, first = True, None
    for part, rows in picks:
        cells = source.tables[part][column]
        for row in rows.tolist():
            where = f"{source.name}: image of record {str(ids[part][row])!r}"
            picture = _opened(where, cells[row].as_py())
            if picture.mode[0] in "IF":
                got, do = f"{picture.mode!r} pixels", "convert it to 8 bits first"
                raise BadInput(where, got=got, expected="8 bits per channel", do=do)
            grey = grey and picture.mode in ("1", "L", "LA", "La")
            shape = _upright_size(picture)
            first = first or (shape, where)
            if size is None and shape != first[0]:
                got = f"{shape[0]}×{shape[1]} pixels where the first image has {first[0][0]}×{first[0][1]}"
                do = f"resize them first, or pass --set {setting}=PIXELS to have all resized to a square"
                raise BadInput(where, got=got, expected="images of one size", do=do)
    if first is None:
        raise BadInput(source.name, got="no records", expected="at least one")
    width, height = first[0] if size is None else (size, size)
    mode = "L" if grey else "RGB"
    return ImageReader(source, "image", (1 if grey else 3, height, width), torch.uint8, {}, column, mode)


def _opened(where: str, cell: dict[str, Any] | None) -> Image.Image:
    if cell is None or (cell["bytes"] is None and not cell["path"]):
        raise BadInput(where, got="nothing", expected="an image in every row", do="drop such rows")
    try:
        if cell["bytes"] is not None:
            return Image.open(io.BytesIO(cell["bytes"]))
        with open(cell["path"], "rb") as file:
            return Image.open(io.BytesIO(file.read()))
    except UnidentifiedImageError:
        raise BadInput(where, got="bytes that are no image", expected="a PNG, JPEG or other image file") from None
    except OSError as error:
        got = error.strerror or error
        raise BadInput(where, got=got, expected="an image file that can be read", do="replace or drop it") from None


_ORIENTATION = 0x0112  # Exif tag; 5 to 8 swap width and height


def _upright(picture: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(picture) if "exif" in picture.info else picture


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height once the picture is turned as its camera says."""
    turned = "exif" in picture.info and picture.getexif().get(_ORIENTATION, 1) >= 5
    return (picture.height, picture.width) if turned else picture.size


# Text


@dataclass(frozen=True)
class TextReader(Reader):
    """Hashed bags of words, float32, shape (text_features,), each of Euclidean length 1 (0 where there is no word).

    Words are hashed, not looked up, so nothing is learnt from any record. Word order is lost.
    """

    column: str = ""

    def decode(self, part: str, rows: Array, ids: Ids) -> Array:
        from sklearn.feature_extraction.text import HashingVectorizer  # here, because it takes a while

        hashing = HashingVectorizer(n_features=self.shape[0], dtype=np.float32)
        dense: Array = hashing.transform(texts_of(self.source, part, rows, ids, self.column)).toarray()
        return dense


def texts_of(source: Source, part: str, rows: Array, ids: Ids, column: str) -> list[str]:
    """The texts of these rows (ascending). Raises BadInput for a row without one."""
    texts: list[str] = few(source.tables[part].select([column]), rows)[column].to_pylist()
    for row, text in zip(rows, texts, strict=True):
        if text is None:
            where = f"{source.name}: text of record {str(ids[row])!r}"
            raise BadInput(where, got="nothing", expected="text in every row", do="fill or drop such rows")
    return texts


# Features


@dataclass(frozen=True)
class Column:
    """One column as features: a number, a vector of `width` numbers, or one of `categories` (one-hot)."""

    name: str
    width: int = 1
    categories: tuple[str, ...] = ()

    @property
    def features(self) -> list[str]:
        if self.categories:
            return [f"{self.name}={category}" for category in self.categories]
        return [self.name] if self.width == 1 else [f"{self.name}[{index}]" for index in range(self.width)]


@dataclass(frozen=True)
class FeatureReader(Reader):
    """float32 features, shape (features,), in the columns' order; their names are the context's "features"."""

    columns: tuple[Column, ...] = ()

    def decode(self, part: str, rows: Array, ids: Ids) -> Array:
        table = few(self.source.tables[part].select([column.name for column in self.columns]), rows)
        blocks = []
        for column in self.columns:
            block = self._block(column, table[column.name].combine_chunks())
            finite = np.isfinite(block).all(1)
            if not finite.all():
                record = str(ids[rows[int(np.argmin(finite))]])
                where = f"{self.source.name}: column {column.name!r} of record {record!r}"
                got = "no value, or a NaN or infinite one"
                raise BadInput(where, got=got, expected="a finite number or a category", do="fill or drop such rows")
            blocks.append(block)
        return np.concatenate(blocks, axis=1)

    def _block(self, column: Column, values: pa.Array | pa.ChunkedArray) -> Array:
        """Shape (rows, width), float32; NaN for what is missing."""
        if column.categories:
            places = pc.index_in(values, pa.array(column.categories, values.type))
            numbers = places.to_numpy(zero_copy_only=False)
            hot: Array = (numbers[:, None] == np.arange(column.width)).astype(np.float32)
            hot[np.isnan(numbers.astype(np.float64))] = np.nan
            return hot
        if pa.types.is_nested(values.type):
            values = values.flatten()
        return _numbers(values).reshape(-1, column.width)


def _numbers(values: pa.Array | pa.ChunkedArray) -> Array:
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    elif pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    numbers: Array = values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


def feature_reader(source: Source, names: Iterable[str], categories: int, setting: str) -> Reader:
    """Numbers and truth values as they are, lists of numbers as vectors, text as categories.

    A column's categories are those of the whole source, like the classes: they do not depend on who is forgotten.
    """
    columns = tuple(_column(source, name, categories, setting) for name in names)
    features = [feature for column in columns for feature in column.features]
    return FeatureReader(source, "features", (len(features),), torch.float32, {"features": features}, columns)


def _column(source: Source, name: str, categories: int, setting: str) -> Column:
    where, kind = f"{source.name}: column {name!r}", source.tables["train"].schema.field(name).type
    cells = pa.chunked_array([chunk for table in source.tables.values() for chunk in table[name].chunks], kind)
    if is_number(kind) or pa.types.is_null(kind):
        return Column(name)
    if is_text(kind):
        found = pc.unique(cells.drop_null()).to_pylist()
        if len(found) > categories:
            got, expected = f"{len(found)} different texts", f"at most {categories} categories"
            do = f"name other columns, or one text column alone, with --set {setting}.input=A,B"
            if len(found) == len(cells):
                do += f", or --set {setting}.id={name} if it names the records"
            raise BadInput(where, got=got, expected=expected, do=do)
        return Column(name, len(found), tuple(sorted(found)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        widths = pc.unique(pc.list_value_length(cells)).to_pylist()
        if is_number(kind.value_type) and len(widths) == 1 and widths[0]:
            return Column(name, widths[0])
        lengths = sorted(str(width) for width in widths)[:3]
        got = f"lists of {kind.value_type}, of lengths {', '.join(lengths)}"
        raise BadInput(where, got=got, expected="lists of numbers of one length", do="flatten or pad them first")
    expected = "images, numbers, truth values or text"
    got = "an image beside other columns" if is_image(kind) else f"values of type {kind}"
    do = f"name the columns to learn from with --set {setting}.input=A,B"
    raise BadInput(where, got=got, expected=expected, do=do)
