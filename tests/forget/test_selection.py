"""Every form of a request, every bad form, and ids that are decided by the seed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from palimpsest.errors import BadInput, UnknownName
from palimpsest.forget.selection import read_ids, select
from palimpsest.rng import Rng
from palimpsest.types import Examples, ForgetRequest, Split

CLASSES = ("ant", "bee", "cat", "dog")
N = 40


@pytest.fixture
def records() -> Examples:
    """40 records, ten of each class; ids in another order than their names', three owners."""
    ids = [f"r{(7 * i) % N:02d}" for i in range(N)]
    return Examples.of({"x": torch.zeros(N, 1)}, torch.arange(N) % 4, ids, [f"owner{i // 10}" for i in range(N)])


def chosen(text: str, records: Examples, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> ForgetRequest:
    return select(text, records, classes, rng=Rng(seed))


@pytest.mark.parametrize(
    "text", ["class=0", "class=cat", "class=0,2", "class=dog, cat", "random=0.1", "random=5", "owner=owner1"]
)
def test_ids_are_those_of_records_sorted_and_unique(records: Examples, text: str) -> None:
    request = chosen(text, records)
    ids = request.ids.tolist()
    assert ids == sorted(set(ids))
    assert set(ids) < set(records.ids.tolist())
    assert request.selection == text


def test_a_class_by_number_and_by_name(records: Examples) -> None:
    by_number, by_name = chosen("class=1", records), chosen("class=bee", records)
    assert by_number.ids.tolist() == by_name.ids.tolist()
    assert set(by_number.ids) == set(records.ids[records.targets.numpy() == 1])
    assert set(chosen("class=bee,0", records).ids) == set(records.ids[records.targets.numpy() < 2])


def test_a_share_of_a_class_is_drawn_by_the_seed(records: Examples) -> None:
    whole = set(chosen("class=1", records).ids)
    half, again, other = (chosen("class=bee:0.5", records, seed).ids.tolist() for seed in (0, 0, 1))
    assert len(half) == 5
    assert set(half) < whole
    assert half == again != other
    assert len(chosen("class=1:0.5,2", records).ids) == 15


@pytest.mark.parametrize("share", ["0", "1", "-0.5", "half", "nan", ""])
def test_a_share_of_a_class_lies_between_0_and_1(records: Examples, share: str) -> None:
    with pytest.raises(BadInput, match=r"expected a number between 0 and 1, as in class=0:0\.5"):
        chosen(f"class=0:{share}", records)


def test_a_colon_in_a_class_name_is_part_of_it(records: Examples) -> None:
    names = ("a:0.5", "a", "b", "c")
    assert set(chosen("class=a:0.5", records, classes=names).ids) == set(records.ids[records.targets.numpy() == 0])
    assert len(chosen("class=a:0.5:0.5", records, classes=names)) == 5


def test_a_name_that_looks_like_a_number_is_a_name(records: Examples) -> None:
    request = chosen("class=0", records, classes=("3", "2", "1", "0"))
    assert set(request.ids) == set(records.ids[records.targets.numpy() == 3])


@pytest.mark.parametrize(("what", "count"), [("0.1", 4), (".5", 20), ("1e-1", 4), ("7", 7), ("1", 1)])
def test_random_takes_a_share_or_a_count(records: Examples, what: str, count: int) -> None:
    assert len(chosen(f"random={what}", records)) == count


def test_random_is_decided_by_the_seed(records: Examples) -> None:
    first, again, other = (chosen("random=10", records, seed).ids.tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_random_takes_every_record_equally_often(records: Examples) -> None:
    drawn = np.concatenate([chosen("random=10", records, seed).ids for seed in range(300)])
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == N
    assert 45 < counts.min() <= counts.max() < 110  # 75 expected, standard deviation 7.5


def test_owner_takes_all_of_hers(records: Examples) -> None:
    assert records.owners is not None
    assert set(chosen("owner=owner2", records).ids) == set(records.ids[records.owners == "owner2"])


def test_ids_from_a_file(records: Examples, tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(b"\xef\xbb\xbf r03 \r\n\r\nr01\r\nr03\r\n")  # as some editors write it
    assert chosen(f"ids={path}", records).ids.tolist() == ["r01", "r03"]
    assert read_ids(path) == ["r03", "r01", "r03"]


@pytest.mark.parametrize(
    "text",
    ["", "class", "class=", "=0", "klass=0", "random:0.1", "all", "class 0"],
)
def test_other_forms_are_refused(records: Examples, text: str) -> None:
    with pytest.raises(BadInput, match=r"--forget: got .* expected class=0, class=0,3, class=0:0.5, random=0.1"):
        chosen(text, records)


@pytest.mark.parametrize(
    "what", ["0", "0.0", "1.0", "-5", "-0.5", "1.5", "41", "0.001", "nan", "inf", "few", "1e3", "²"]
)
def test_a_share_or_count_that_cannot_be_is_refused(records: Examples, what: str) -> None:
    with pytest.raises(BadInput, match="a share between 0 and 1, or a count from 1 to 40"):
        chosen(f"random={what}", records)


@pytest.mark.parametrize("what", ["dgo", "4", "-1", "0,", "²", "0.5"])
def test_a_class_that_does_not_exist_is_refused(records: Examples, what: str) -> None:
    with pytest.raises(UnknownName, match=r"--forget class: got .* expected one of 0, 1, 2, 3, ant, bee"):
        chosen(f"class={what}", records)


def test_the_nearest_class_is_named(records: Examples) -> None:
    with pytest.raises(UnknownName, match="did you mean 'dog'"):
        chosen("class=dgo", records)


def test_a_class_without_training_records_is_nothing_to_forget(records: Examples) -> None:
    with pytest.raises(BadInput, match="got no record, expected at least one training record"):
        chosen("class=fox", records, classes=(*CLASSES, "fox"))


def test_forgetting_everything_or_all_but_one_class_is_refused(records: Examples) -> None:
    for text in ("random=40", "class=0,1,2,3"):
        with pytest.raises(BadInput, match="got every training record, expected some left"):
            chosen(text, records)
    with pytest.raises(BadInput, match="got retain records of one class"):
        chosen("class=0,1,3", records)


def test_bad_files_are_refused(records: Examples, tmp_path: Path) -> None:
    empty, strange, binary = tmp_path / "empty", tmp_path / "strange", tmp_path / "binary"
    empty.write_text("\n\n")
    strange.write_text("r01\nnot-there\nnor-this\n")
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="got no record"):
        chosen(f"ids={empty}", records)
    with pytest.raises(BadInput, match="got 2 ids that are not among the training records, 'nor-this' first"):
        chosen(f"ids={strange}", records)
    for path in (binary, tmp_path / "missing", tmp_path):
        with pytest.raises(BadInput, match="expected a text file with one record id per line"):
            chosen(f"ids={path}", records)


def test_a_test_record_cannot_be_forgotten(digits: Split, tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_text(str(digits.test.ids[0]))
    with pytest.raises(BadInput, match="not among the training records"):
        select(f"ids={path}", digits.train, digits.classes, rng=Rng(0))


def test_owners_that_are_not_there_are_refused(records: Examples, digits: Split) -> None:
    with pytest.raises(UnknownName, match="did you mean 'owner1'"):
        chosen("owner=ovner1", records)
    with pytest.raises(BadInput, match="got data without owners"):
        select("owner=me", digits.train, digits.classes, rng=Rng(0))
