"""Records that somebody handed in, beside the base that all others lie in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from palimpsest.errors import BadInput
from palimpsest.types import Examples, Split


def altered(train: Examples, places: list[int]) -> tuple[Examples, Tensor]:
    given = torch.full((len(places), *next(iter(train.inputs.values())).shape[1:]), 0.3)
    return train.altered(train.ids[places], dict.fromkeys(train.inputs, given), torch.full((len(places),), 7)), given


def test_they_take_the_place_of_what_they_alter_and_nothing_else_moves(digits: Split) -> None:
    found, given = altered(digits.train, [5, 2])
    assert found.ids.tolist() == digits.train.ids.tolist()
    assert next(iter(found.inputs.values())) is next(iter(digits.train.inputs.values())), "the base is shared"
    whole, plain = found.batch(), digits.train.batch()
    (name,) = plain.inputs
    assert whole.inputs[name].dtype == torch.float32
    assert torch.equal(whole.inputs[name][[5, 2]], given)
    assert whole.targets[[5, 2]].tolist() == [7, 7]
    rest = np.setdiff1d(np.arange(len(found)), [2, 5])
    assert torch.equal(whole.inputs[name][rest], plain.inputs[name][rest])
    assert torch.equal(whole.targets[rest], plain.targets[rest])
    assert np.flatnonzero(found.handed_in).tolist() == [2, 5]
    assert not digits.train.handed_in.any()


def test_subsets_joins_and_moves_keep_them(digits: Split) -> None:
    found, given = altered(digits.train, [5, 2])
    (name,) = found.inputs
    ids = digits.train.ids[[2, 3]].tolist()
    assert torch.equal(found.only(ids).batch().inputs[name][0], given[0])
    assert not found.without(ids[:1]).handed_in[:4].any()
    joined = Examples.joined([found, digits.test])
    assert joined.inputs[name] is found.inputs[name], "nothing is copied where one part alone has some"
    assert torch.equal(joined.batch(torch.tensor([5])).inputs[name][0], given[0])
    assert torch.equal(joined.batch().inputs[name][len(found) :], digits.test.batch().inputs[name])
    other, _ = altered(digits.train, [9])
    both = Examples.joined([found.take([5]), other.take([9])])
    assert both.batch().inputs[name].unique().tolist() == pytest.approx([0.3])
    assert torch.equal(found.apart().batch().inputs[name], found.batch().inputs[name])
    assert torch.equal(replace(digits, train=found).to("cpu").train.batch().inputs[name], found.batch().inputs[name])
    for size in (7, 100):
        parts = torch.cat([part.inputs[name] for part in found.batches(size)])
        assert torch.equal(parts, found.batch().inputs[name])


def test_what_cannot_be_handed_in_is_refused(digits: Split) -> None:
    train = digits.train
    (name,) = train.inputs
    good = torch.zeros(1, *train.inputs[name].shape[1:])
    with pytest.raises(BadInput, match="nobody, which is none of them"):
        train.altered(np.array(["nobody"]), {name: good}, torch.zeros(1))
    with pytest.raises(BadInput, match="an id twice"):
        train.altered(train.ids[[0, 0]], {name: torch.cat([good, good])}, torch.zeros(2))
    with pytest.raises(BadInput, match=r"got shape \(1, 3\), expected shape"):
        train.altered(train.ids[:1], {name: torch.zeros(1, 3)}, torch.zeros(1))
    found, _ = altered(train, [0])
    with pytest.raises(BadInput, match="handed in before"):
        altered(found, [1])
