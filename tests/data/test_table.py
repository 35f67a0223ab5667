"""CSV and Parquet files: what the columns become, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from palimpsest.data.table import Table
from palimpsest.errors import BadInput, PalimpsestError
from palimpsest.types import Examples, Split
from tests.data.sources import people

Write = Callable[..., Path]
GOOD = "a,b,label\n" + "".join(f"{row},{row * 2},{row % 2}\n" for row in range(60))


def everyone(split: Split) -> dict[str, tuple[int, list[float]]]:
    """Record id → class number and values, over all parts."""
    found = {}
    for part in (split.train, split.validation, split.test):
        values = next(iter(part.batch().inputs.values()))
        found |= {
            name: (target, row)
            for name, target, row in zip(part.ids.tolist(), part.targets.tolist(), values.tolist(), strict=True)
        }
    return found


def test_columns_become_features_labels_and_owners(csv: Write) -> None:
    split = Table(str(csv(people())), id="key", owner="owner").load()
    assert (split.name, split.kind, split.classes) == ("people", "features", ("no", "yes"))
    names = split.train.context["features"]
    assert names == ["age", "married", "town=Bonn", "town=Oslo", "town=Rome"]
    found = everyone(split)
    assert len(found) == 120
    assert found["p004"] == (0, [24.0, 0.0, 0.0, 1.0, 0.0])
    assert found["p101"] == (1, [21.5, 1.0, 1.0, 0.0, 0.0])
    part = split.train.only(["p011"]) if "p011" in split.train.ids else split.test.only(["p011"])
    assert part.owners is not None
    assert set(split.train.owners.tolist() if split.train.owners is not None else []) == {f"{n:03d}" for n in range(9)}


def test_the_given_columns_alone_are_learnt_from(csv: Write) -> None:
    split = Table(str(csv(people())), label="owner", input="age, married").load()
    assert split.classes == tuple(str(number) for number in range(9))
    assert split.train.context["features"] == ["age", "married"]


def test_rows_name_records_whatever_the_limit(csv: Write) -> None:
    path = str(csv(people()))
    full, few = everyone(Table(path, id="", input="age").load()), everyone(Table(path, limit=20, input="age").load())
    assert set(full) == {f"people/{row}" for row in range(120)}
    assert 20 < len(few) <= 40
    assert all(full[name] == values for name, values in few.items())


def test_ids_of_a_column_part_alike_in_any_order(csv: Write) -> None:
    header, *rows = people().splitlines()
    turned = csv("\n".join([header, *rows[::-1]]), "turned/people.csv")
    one, other = (Table(str(path), id="key").load() for path in (csv(people()), turned))
    assert set(one.test.ids) == set(other.test.ids)
    assert everyone(one) == everyone(other)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_told_by_the_header(csv: Write, separator: str) -> None:
    plain, other = csv(people()), csv(people().replace(",", separator), "other/people.csv")
    assert Table(str(other), id="key").load().fingerprint == Table(str(plain), id="key").load().fingerprint


def test_contents_decide_the_fingerprint_and_not_the_place(csv: Write) -> None:
    first = Table(str(csv(GOOD, "here/people.csv"))).load()
    moved = Table(str(csv(GOOD, "there/deep/people.csv"))).load()
    changed = Table(str(csv(GOOD.replace("\n3,6,", "\n3,7,"), "changed/people.csv"))).load()
    assert first.fingerprint == moved.fingerprint != changed.fingerprint


def test_parquet_says_the_same_as_csv(csv: Write, tmp_path: Path) -> None:
    path = csv(people())
    parquet = tmp_path / "people.parquet"
    table = pa.csv.read_csv(path)
    pq.write_table(table.set_column(3, "town", table["town"].dictionary_encode()), parquet)
    assert everyone(Table(str(parquet), id="key").load()) == everyone(Table(str(path), id="key").load())


def test_types_of_parquet(tmp_path: Path) -> None:
    count = 60
    table = pa.table(
        {
            "__index_level_0__": pa.array(range(count), pa.int64()),
            "vector": pa.array([[row, row + 1] for row in range(count)], pa.list_(pa.int8())),
            "fixed": pa.array([[0.5, 1.5, 2.5]] * count, pa.list_(pa.float64(), 3)),
            "small": pa.array([np.float16(row) for row in range(count)], pa.float16()),
            "money": pa.array(list(range(count)), pa.decimal128(10, 2)),
            "target": pa.array([float(row % 12) for row in range(count)], pa.float64()),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    split = Table(str(tmp_path / "t.parquet")).load()
    assert split.classes == tuple(str(number) for number in range(12))  # as numbers: 2 before 10
    assert split.train.context["features"] == [
        "vector[0]",
        "vector[1]",
        "fixed[0]",
        "fixed[1]",
        "fixed[2]",
        "small",
        "money",
    ]
    assert everyone(split)["t/7"] == (7, [7.0, 8.0, 0.5, 1.5, 2.5, 7.0, 7.0])


def test_a_lone_text_column_is_hashed_words(csv: Write) -> None:
    rows = [f'{row},"{"good" if row % 2 else "bad"} film number {row}",{row % 2}' for row in range(80)]
    split = Table(str(csv("id,review,label\n" + "\n".join(rows))), text_features=64).load()
    values = split.train.batch().inputs["text"]
    assert (split.kind, split.shape, values.dtype) == ("text", (64,), torch.float32)
    torch.testing.assert_close(values.norm(dim=1), torch.ones(len(values)))


def test_words_are_hashed_alike_whoever_else_is_there(csv: Write) -> None:
    rows = [f"review of {word},{index % 2}" for index, word in enumerate("abcdefghijklmnopqrst" * 3)]
    full = csv("text,label\n" + "\n".join(rows))
    fewer = csv("text,label\n" + "\n".join(rows[:40]), "fewer/people.csv")
    one, other = (everyone(Table(str(path), text_features=32).load()) for path in (full, fewer))
    assert all(one[name] == value for name, value in other.items())


BAD: list[tuple[str, str, dict[str, Any], str]] = [
    ("empty", "", {}, "people.csv: got Empty CSV file"),
    ("header only", "a,label\n", {}, "no rows"),
    ("short row", GOOD + "7\n", {}, "Expected 3 columns, got 1"),
    ("no label", GOOD.replace("label", "c"), {}, "no column that is known as the label.*a, b, c.*table.label"),
    ("two labels", GOOD.replace("a,", "y,", 1), {}, "2 columns that may be it: y, label"),
    ("unknown label", GOOD, {"label": "lable"}, "got 'lable', expected one of.*did you mean 'label'"),
    ("unknown owner", GOOD, {"owner": "who"}, "table.owner: got 'who'"),
    ("unknown id", GOOD, {"id": "who"}, "table.id: got 'who'"),
    ("unknown input", GOOD, {"input": "a,c"}, "table.input: got 'c'"),
    ("label as input", GOOD, {"input": "a,label"}, "'label', which is the label, id or owner column"),
    ("one class", GOOD.replace(",1\n", ",0\n"), {}, "1 class in the training records"),
    ("label missing", GOOD + "1,2,\n", {}, "label column 'label': got nothing in row 60"),
    ("label is a number", GOOD, {"label": "a"}, "60 different values in 60 rows, expected classes"),
    ("label has fractions", GOOD.replace(",1\n", ",1.5\n"), {}, "numbers with fractions"),
    ("value missing", GOOD + ",2,1\n", {}, "column 'a' of record 'people/60': got no value"),
    ("infinite", GOOD + "inf,2,1\n", {}, "column 'a' of record 'people/60': got no value, or a NaN or infinite"),
    ("beyond float32", GOOD + "1e300,2,1\n", {}, "column 'a' of record 'people/60'"),
    ("category missing", people() + "p999,5,true,,001,no\n", {"id": "key"}, "column 'town' of record 'p999'"),
    ("same id twice", GOOD, {"id": "label"}, "table: id column|id column 'label': got '0' 30 times"),
    ("blank id", people() + '" ",5,true,Rome,001,no\n', {"id": "key"}, "got ' ', expected ids that fit on a line"),
    (
        "too many texts",
        people(),
        {"label": "class", "categories": 50},
        "column 'key'.*120 different texts.*table.input.*table.id=key",
    ),
    ("dates", "when," + GOOD.replace("\n", "\n2020-01-02,")[:-11], {}, "column 'when': got values of type date32"),
    ("nothing to learn from", GOOD, {"id": "a", "owner": "b"}, "no column beside label, id and owner"),
    ("two columns of one name", GOOD.replace("b,", "a,", 1), {}, "two columns 'a'"),
    ("bad limit", GOOD, {"memory_limit": -1}, "table.memory_limit: got -1"),
    ("too few", "a,label\n1,0\n2,1\n", {}, "no records"),
]


@pytest.mark.parametrize(("text", "settings", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_cannot_be_used_is_refused_in_one_line(
    csv: Write, own_cache: Path, text: str, settings: dict[str, Any], message: str
) -> None:
    path = csv(text)
    for more in ({}, {"memory_limit": 0}):
        with pytest.raises(PalimpsestError, match=message) as error:
            Table(str(path), **{**more, **settings}).load()
        assert "\n" not in str(error.value)
    assert not [path for path in own_cache.rglob("*") if path.is_file()]  # nothing half-written


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    latin = tmp_path / "latin.csv"
    latin.write_bytes("name,label\né,1\n".encode("latin-1") * 2)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "table.xlsx").write_bytes(b"")
    for name, message in {
        "latin.csv": "UTF-8",
        "broken.parquet": "broken.parquet: got",
        "table.xlsx": "the ending '.xlsx'",
        "none.csv": "no such file",
        ".": "open a folder as hub",
    }.items():
        with pytest.raises(BadInput, match=message):
            Table(str(tmp_path / name)).load()


def test_lists_of_different_lengths_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [[1], [1, 2]] * 20, "label": [0, 1] * 20}), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="lists of int64, of lengths 1, 2"):
        Table(str(tmp_path / "t.parquet")).load()


def test_examples_hold_what_the_table_holds_after_subsetting(csv: Write) -> None:
    split = Table(str(csv(people())), id="key").load()
    kept: Examples = split.train.without(split.train.ids[:5].tolist())
    base, same = next(iter(split.train.inputs.values())), next(iter(kept.inputs.values()))
    assert base.data_ptr() == same.data_ptr() == next(iter(split.test.inputs.values())).data_ptr()
