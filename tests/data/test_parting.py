"""Parting by hash: what decides where a record goes, checked on names alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.data.base import Dataset, by_share, check, fingerprint, hashes
from palimpsest.data.digits import Digits
from palimpsest.errors import BadInput
from palimpsest.types import Examples, Split


class Parts(Dataset):
    kind = "none"  # no member of the catalog

    def load(self) -> Split:
        raise AssertionError("not reached")

    def names(self, ids: list[str]) -> dict[str, set[str]]:
        array = np.asarray(ids, dtype=np.str_)
        parting = self.parted("test", array)
        return {part: set(array[getattr(parting, part)].tolist()) for part in ("train", "validation", "test")}


def drawn_names(seed: int) -> list[str]:
    """Some 300 names: enough for every part to have some, whatever the names."""
    numbers = np.random.default_rng(seed).choice(10**6, 280 + seed % 40, replace=False)
    return [f"r{number}" for number in numbers]


several = st.integers(0, 2**32 - 1).map(drawn_names)


@settings(max_examples=25, deadline=None)
@given(ids=several, data=st.data())
def test_a_record_that_goes_moves_no_other(ids: list[str], data: st.DataObject) -> None:
    gone = ids[data.draw(st.integers(0, len(ids) - 1))]
    before, after = Parts().names(ids), Parts().names([name for name in ids if name != gone])
    assert after == {part: names - {gone} for part, names in before.items()}


@settings(max_examples=25, deadline=None)
@given(ids=several, data=st.data())
def test_under_a_limit_a_record_that_goes_only_lets_others_in(ids: list[str], data: st.DataObject) -> None:
    gone, parts = ids[data.draw(st.integers(0, len(ids) - 1))], Parts(limit=150)
    before, after = parts.names(ids), parts.names([name for name in ids if name != gone])
    assert sum(len(after[part] - before[part]) for part in before) <= 1
    for part, names in before.items():
        assert names - {gone} <= after[part]


@settings(max_examples=25, deadline=None)
@given(ids=several, data=st.data(), limit=st.none() | st.integers(120, 300))
def test_the_order_of_the_source_decides_nothing(ids: list[str], data: st.DataObject, limit: int | None) -> None:
    shuffled = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(ids).tolist()
    assert Parts(limit=limit).names(ids) == Parts(limit=limit).names(shuffled)


@settings(max_examples=25, deadline=None)
@given(ids=several, limit=st.none() | st.integers(120, 300))
def test_parts_are_disjoint_and_a_limit_takes_from_the_same_parts(ids: list[str], limit: int | None) -> None:
    parts, unlimited = Parts(limit=limit).names(ids), Parts().names(ids)
    assert not parts["train"] & parts["validation"] | parts["test"] & (parts["train"] | parts["validation"])
    assert all(parts[part] <= unlimited[part] for part in parts)
    if limit is None:
        assert set.union(*parts.values()) == set(ids)
    else:
        assert len(parts["train"]) + len(parts["validation"]) <= limit
        assert len(parts["test"]) <= limit


def test_shares_come_out_as_asked() -> None:
    names = np.array([f"r{n}" for n in range(20_000)])
    for share in (0.02, 0.25, 0.9):
        assert by_share(names, "any", share).mean() == pytest.approx(share, abs=0.012)
    assert not np.array_equal(hashes(names, "test"), hashes(names, "validation"))


def test_a_small_set_still_has_every_part() -> None:
    parts = Parts().names([f"r{n}" for n in range(10)])
    assert all(parts.values())


def test_what_the_source_brings_is_left_as_it_is() -> None:
    train, held, test = (np.array([f"{part}{n}" for n in range(50)]) for part in "abc")
    parting = Parts(limit=30).parted("test", train, validation=held, test=test)
    assert [len(part) for part in (parting.train, parting.validation, parting.test)] == [30, 30, 30]
    assert all((np.diff(part) > 0).all() for part in (parting.train, parting.validation, parting.test))


@pytest.mark.parametrize("bad", [{"validation": -0.1}, {"test": 1.0}, {"limit": 9}])
def test_shares_and_limits_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=rf"Parts\.{next(iter(bad))}: got"):
        Parts(**bad)  # type: ignore[arg-type]


def records(values: torch.Tensor, ids: str = "abcd", owners: str | None = None) -> Examples:
    return Examples.of({"features": values}, torch.tensor([0, 1, 0, 1]), list(ids), owners and list(owners))


def test_a_fingerprint_is_of_contents_and_not_of_places() -> None:
    values = torch.arange(8.0).reshape(4, 2)
    mark = fingerprint(records(values))
    twice = Examples.of({"features": values.repeat(2, 1)}, torch.tensor([1, 1, 1, 1, 0, 1, 0, 1]), "efghabcd")
    assert fingerprint(twice.take([4, 5, 6, 7])) == mark
    others = [
        records(values + torch.eye(4, 2) * 1e-6),
        records(values, "abce"),
        records(values, owners="xxyy"),
        records(values.reshape(4, 1, 2)),
        records(values.byte()),
        records(values).take([1, 0, 2, 3]),
    ]
    assert len({mark, *map(fingerprint, others)}) == 7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_named_by_record(value: float) -> None:
    values = torch.zeros(4, 2)
    values[2, 1] = value
    with pytest.raises(BadInput, match="NaN or infinite value in 'features' of record 'c'"):
        check("data: train", records(values))


def test_public_records_are_apart_and_private_ones_few() -> None:
    """Public ones are a share by id, whatever else there is; the private limit takes from the rest."""
    whole, parted = Digits(limit=500).load(), Digits(limit=500, public=0.8, private=30).load()
    assert parted.public is not None
    assert len(parted.train) == 30
    assert 0.7 < len(parted.public) / len(whole.train) < 0.9
    every = {*parted.public.ids.tolist(), *parted.train.ids.tolist()}
    assert len(every) == len(parted.public) + 30
    assert every <= set(whole.train.ids.tolist())
    assert parted.test.ids.tolist() == whole.test.ids.tolist()
    assert parted.fingerprint != whole.fingerprint
    more = Digits(limit=500, public=0.8, private=60).load()
    assert set(parted.train.ids.tolist()) < set(more.train.ids.tolist())
    assert whole.public is None
