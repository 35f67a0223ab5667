"""Ranks among decoys by hand and under their null, matchings, and exactly recovered columns."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.measures import identification
from palimpsest.measures.identification import assign, exactly_recovered, mean_colour, normalised_rank, squared
from palimpsest.measures.perceptual import perceptual


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def column(*values: float) -> Tensor:
    """Records of one feature."""
    return torch.tensor(values).view(-1, 1)


# ranks


def test_the_rank_is_the_share_of_farther_decoys() -> None:
    recovered, truth = column(0.0, 0.0, 0.0), column(0.3, 0.05, 0.9)
    decoys = torch.tensor([0.1, 0.2, 0.4, 0.5]).repeat(3, 1).view(3, 4, 1)
    assert normalised_rank(recovered, truth, decoys, squared).equal(f64(0.5, 1.0, 0.0))


def test_each_row_has_its_own_decoys_and_its_own_recovered_sample() -> None:
    recovered, truth = column(0.0, 1.0), column(0.5, 0.5)
    decoys = torch.tensor([[0.25, 0.625, 0.75, 1.0], [0.0, 0.75, 0.75, 0.75]]).view(2, 4, 1)
    assert normalised_rank(recovered, truth, decoys, squared).equal(f64(0.75, 0.25))


def test_ties_count_half() -> None:
    recovered, truth = column(0.5, 0.5, 0.5), column(0.25, 0.25, 0.25)
    decoys = torch.tensor([[0.25, 0.75, 0.0, 0.5], [0.75, 0.75, 0.75, 0.25], [0.75, 0.0, 1.0, 0.0]]).view(3, 4, 1)
    assert normalised_rank(recovered, truth, decoys, squared).equal(f64(0.5, 0.5, 0.875))


def test_a_distance_that_says_nothing_has_rank_one_half() -> None:
    drawn = noise(3, 2), noise(3, 2, seed=1), noise(3, 7, 2, seed=2)
    assert normalised_rank(*drawn, lambda one, other: torch.zeros(len(one))).equal(f64(0.5, 0.5, 0.5))


def test_the_distance_gets_the_recovered_sample_first() -> None:
    drawn = noise(2, 3), noise(2, 3, seed=1), noise(2, 4, 3, seed=2)
    found = normalised_rank(*drawn, lambda one, other: one.sum(1) + (other - 2).sum(1) * 0)
    assert found.equal(f64(0.5, 0.5))


@pytest.mark.parametrize("distance", [squared, mean_colour, lambda a, b: (a - b).flatten(1).sum(1).mul(4).round()])
def test_with_each_record_in_turn_as_the_truth_the_mean_is_exactly_one_half(distance) -> None:
    """The null, with its ties: exchangeable means that any of the d + 1 records might be the deleted one."""
    pool, recovered = noise(9, 3, 2, 2), noise(1, 3, 2, 2, seed=1).expand(9, 3, 2, 2)
    pool[3], pool[7] = pool[0], pool[0]
    others = torch.stack([torch.cat([pool[:i], pool[i + 1 :]]) for i in range(9)])
    found = normalised_rank(recovered, pool, others, distance)
    assert float(found.mean()) == pytest.approx(0.5, abs=1e-12)
    assert len(found.unique()) > 1


def test_without_ties_the_null_is_uniform() -> None:
    n, d = 4000, 4
    drawn = noise(n, 5, seed=3), noise(n, 5, seed=4), noise(n, d, 5, seed=5)
    found = normalised_rank(*drawn, squared)
    shares = torch.stack([(found == rank / d).double().mean() for rank in range(d + 1)])
    torch.testing.assert_close(shares, torch.full((d + 1,), 1 / (d + 1), dtype=torch.float64), atol=0.025, rtol=0)
    assert float(found.mean()) == pytest.approx(0.5, abs=4 * math.sqrt((d + 2) / (12 * d * n)))


def test_the_null_sees_a_small_leak() -> None:
    """A hundredth of the truth in the recovered sample is already outside the tolerance of the test above."""
    n, d = 4000, 4
    truth, decoys, guess = noise(n, 5, seed=4), noise(n, d, 5, seed=5), noise(n, 5, seed=3)
    rank = normalised_rank(0.9 * guess + 0.1 * truth, truth, decoys, squared).mean()
    assert float(rank) > 0.5 + 4 * math.sqrt((d + 2) / (12 * d * n))


@pytest.mark.parametrize("together", [1, 3, 7, 1000])
def test_few_pairs_are_in_memory_at_once_and_their_number_changes_nothing(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = noise(4, 3, 2, 2), noise(4, 3, 2, 2, seed=1), noise(4, 5, 3, 2, 2, seed=2)
    expected, sizes = normalised_rank(*drawn, squared), []

    def counted(one: Tensor, other: Tensor) -> Tensor:
        sizes.append(len(one))
        return squared(one, other)

    monkeypatch.setattr(identification, "TOGETHER", together)
    assert normalised_rank(*drawn, counted).equal(expected)
    assert max(sizes) <= together
    assert sum(sizes) == 4 * 6


def test_shared_decoys_may_be_a_view() -> None:
    drawn, shared = (noise(4, 6), noise(4, 6, seed=1)), noise(1, 5, 6, seed=2)
    copied = shared.repeat(4, 1, 1)
    assert normalised_rank(*drawn, shared.expand(4, 5, 6), squared).equal(normalised_rank(*drawn, copied, squared))


def test_no_gradient_is_kept() -> None:
    def watched(one: Tensor, other: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return squared(one, other)

    recovered, truth = noise(2, 3).requires_grad_(), noise(2, 3, seed=1)
    assert not normalised_rank(recovered, truth, noise(2, 4, 3, seed=2), watched).requires_grad
    assert not assign(recovered, truth, watched).requires_grad


def test_a_perceptual_distance_ranks_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    truth, decoys = noise(3, 3, 6, 6, seed=1), noise(3, 5, 3, 6, 6, seed=2)
    recovered = (truth + 0.05 * noise(3, 3, 6, 6, seed=3)).clamp(0, 1)
    assert normalised_rank(recovered, truth, decoys, partial(perceptual, network)).equal(f64(1.0, 1.0, 1.0))
    assert normalised_rank(recovered, decoys[:, 0], decoys[:, 1:], partial(perceptual, network)).max() < 1


@pytest.mark.parametrize(
    ("recovered", "truth", "decoys", "told"),
    [
        (noise(2, 3), noise(3, 3), noise(2, 4, 3), r"\(2, 3\) and \(3, 3\)"),
        (noise(2, 3), noise(2, 4), noise(2, 4, 3), r"\(2, 3\) and \(2, 4\)"),
        (noise(0, 3), noise(0, 3), noise(0, 4, 3), "at least one"),
        (noise(2), noise(2), noise(2, 4), "at least one"),
        (noise(2, 3), noise(2, 3), noise(4, 3), r"decoys: got shape \(4, 3\), expected \(2, decoys, 3\)"),
        (noise(2, 3), noise(2, 3), noise(3, 4, 3), "its own row of decoys"),
        (noise(2, 3), noise(2, 3), noise(2, 4, 5), "its own row of decoys"),
        (noise(2, 3), noise(2, 3), noise(2, 0, 3), "decoys: got none"),
        (torch.full((2, 3), math.nan), noise(2, 3), noise(2, 4, 3), "2 of 2 values not finite"),
        (noise(2, 3), noise(2, 3), torch.full((2, 4, 3), math.inf), "8 of 8 values not finite"),
        (torch.ones(2, 3, dtype=torch.uint8), noise(2, 3), noise(2, 4, 3), "divide uint8"),
        (noise(2, 3), noise(2, 3), torch.ones(2, 4, 3, dtype=torch.uint8), "divide uint8"),
    ],
)
def test_what_cannot_be_ranked_is_refused(recovered: Tensor, truth: Tensor, decoys: Tensor, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        normalised_rank(recovered, truth, decoys, squared)


@pytest.mark.parametrize("distance", [lambda a, b: (a - b).square(), lambda a, b: (a - b).square().sum()])
def test_a_distance_that_is_not_one_number_a_pair_is_refused(distance) -> None:
    with pytest.raises(BadInput, match="one number a pair"):
        normalised_rank(noise(2, 3), noise(2, 3), noise(2, 4, 3), distance)
    with pytest.raises(BadInput, match="one number a pair"):
        assign(noise(2, 3), noise(2, 3), distance)


# distances


@pytest.mark.parametrize("shape", [(2, 4), (2, 1, 2, 2), (2, 2, 2)])
def test_squared_by_hand(shape: tuple[int, ...]) -> None:
    one = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.25, 0.0]]).view(shape)
    other = torch.tensor([[1.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]).view(shape)
    assert squared(one, other).equal(f64(1.25 / 4, 1.3125 / 4))


@pytest.mark.parametrize("distance", [squared, mean_colour])
def test_differences_are_taken_in_double_precision(distance) -> None:
    one, other = torch.ones(1, 3), torch.full((1, 3), 2.0**-30)
    assert float(distance(one, other)) == (1 - 2.0**-30) ** 2 < 1


def test_mean_colour_by_hand() -> None:
    """Channel means (1/2, 1/4) and (0, 1): 1/4 + 9/16; the same colours elsewhere in the image are no distance."""
    one = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])[None]
    other = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])[None]
    assert mean_colour(torch.cat([one, one]), torch.cat([other, one.flip(3)])).equal(f64(0.8125, 0.0))
    assert float(squared(one, one.flip(3))) > 0.5


@pytest.mark.parametrize("shape", [(2, 4), (2, 2, 2)])
def test_mean_colour_of_other_records_is_that_of_their_means(shape: tuple[int, ...]) -> None:
    one = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]).view(shape)
    other = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]).view(shape)
    assert mean_colour(one, other).equal(f64(0.0625, 0.0))


@pytest.mark.parametrize("distance", [squared, mean_colour])
@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (noise(2, 3), noise(2, 4), r"\(2, 3\) and \(2, 4\)"),
        (noise(1, 3), noise(2, 3), r"\(1, 3\) and \(2, 3\)"),
        (noise(0, 3), noise(0, 3), "at least one"),
        (noise(3), noise(3), "at least one"),
        (torch.ones(2, 3, dtype=torch.uint8), noise(2, 3), "divide uint8 images by 255"),
        (noise(2, 3), torch.ones(2, 3, dtype=torch.long), "divide uint8 images by 255"),
    ],
)
def test_records_that_are_no_pairs_are_refused(distance, one: Tensor, other: Tensor, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        distance(one, other)


# matching


def test_a_permutation_is_found() -> None:
    truth, shuffle = noise(6, 3, 4, 4), torch.tensor([4, 0, 5, 1, 3, 2])
    recovered = truth[shuffle] + 0.01 * noise(6, 3, 4, 4, seed=1)
    order = assign(recovered, truth, squared)
    assert order.dtype == torch.long
    assert recovered[order].sub(truth).abs().max() < 0.02
    assert shuffle[order].equal(torch.arange(6))


def test_the_matching_is_the_best_of_all_and_not_the_greedy_one() -> None:
    """Greedy gives the first record its nearest sample, 0.4, and leaves the second one at distance 1."""
    recovered, truth = column(0.4, -0.5), column(0.0, 0.5)
    assert assign(recovered, truth, squared).tolist() == [1, 0]
    recovered, truth = noise(5, 2, seed=2), noise(5, 2, seed=3)
    costs = {order: float(squared(recovered[list(order)], truth).sum()) for order in itertools.permutations(range(5))}
    assert tuple(assign(recovered, truth, squared).tolist()) == min(costs, key=lambda order: costs[order])


def test_the_distance_of_a_matching_gets_the_recovered_sample_first() -> None:
    """Nothing is lost where a sample is one above its record, in a circle of three; one below costs as much as none."""
    records = column(0.0, 1.0, 2.0)
    order = assign(records, records, lambda one, other: ((one - other - 1) % 3).clamp_max(1).sum(1))
    assert order.tolist() == [1, 2, 0]


def test_one_record_is_matched_with_its_one_sample() -> None:
    assert assign(noise(1, 3), noise(1, 3, seed=1), squared).tolist() == [0]


def test_a_matching_is_made_from_few_pairs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recovered, truth, sizes = noise(5, 2), noise(5, 2, seed=1), []
    expected = assign(recovered, truth, squared)

    def counted(one: Tensor, other: Tensor) -> Tensor:
        sizes.append(len(one))
        return squared(one, other)

    monkeypatch.setattr(identification, "TOGETHER", 4)
    assert assign(recovered, truth, counted).equal(expected)
    assert sizes == [4] * 6 + [1]


@pytest.mark.parametrize(
    ("recovered", "truth", "told"),
    [
        (noise(2, 3), noise(3, 3), "one recovered sample a record"),
        (noise(2, 3), noise(2, 4), "one recovered sample a record"),
        (noise(0, 3), noise(0, 3), "at least one"),
        (torch.full((2, 3), math.nan), noise(2, 3), "4 of 4 values not finite"),
    ],
)
def test_what_cannot_be_matched_is_refused(recovered: Tensor, truth: Tensor, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        assign(recovered, truth, squared)


# tabular records


BINARY = torch.tensor([0.0, 1.0])
THIRDS = torch.arange(4) / 3


def test_a_column_is_recovered_where_the_nearest_level_is_the_true_one() -> None:
    truth = torch.tensor([[0.0, 1.0, 1 / 3, 0.77], [1.0, 0.0, 1.0, 0.12]])
    recovered = torch.tensor([[0.49, 0.51, 0.45, 0.0], [0.49, -3.0, 0.8, 0.12]])
    columns = {0: BINARY, 1: BINARY, 2: THIRDS}
    assert exactly_recovered(recovered, truth, columns).equal(f64(1.0, 1 / 3))
    assert exactly_recovered(recovered, truth, {2: THIRDS}).equal(f64(1.0, 0.0))
    assert exactly_recovered(truth, truth, columns).equal(f64(1.0, 1.0))


def test_values_beyond_the_levels_belong_to_the_last_one() -> None:
    truth, recovered = column(1.0, 0.0, 1.0), column(7.0, -7.0, -7.0)
    assert exactly_recovered(recovered, truth, {0: THIRDS}).equal(f64(1.0, 1.0, 0.0))


def test_a_value_midway_is_recovered_as_neither_level() -> None:
    truth, recovered = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]])
    assert exactly_recovered(recovered, truth, {0: BINARY, 1: BINARY}).equal(f64(0.0))


def test_the_order_of_levels_and_levels_named_twice_do_not_matter() -> None:
    truth, recovered = THIRDS[[0, 3, 1, 2]].view(-1, 1), column(0.1, 0.7, 0.4, 0.6)
    expected = exactly_recovered(recovered, truth, {0: THIRDS})
    assert expected.equal(f64(1.0, 0.0, 1.0, 1.0))
    assert exactly_recovered(recovered, truth, {0: torch.cat([THIRDS.flip(0), THIRDS])}).equal(expected)


def test_noise_of_a_short_float_is_no_other_level() -> None:
    levels = torch.arange(8, dtype=torch.float64) / 7
    truth = levels.float().view(-1, 1)
    assert exactly_recovered(truth, truth, {0: levels}).equal(torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize(
    ("recovered", "truth", "columns", "told"),
    [
        (noise(2, 3), BINARY[None].repeat(2, 1), {0: BINARY}, r"\(2, 3\) and \(2, 2\)"),
        (noise(2, 3, 1), noise(2, 3, 1), {0: BINARY}, "tabular records"),
        (noise(0, 2), noise(0, 2), {0: BINARY}, "at least one"),
        (torch.ones(2, 2, dtype=torch.long), torch.ones(2, 2), {0: BINARY}, "expected floats"),
        (noise(2, 2), torch.ones(2, 2), {}, "columns: got none"),
        (noise(2, 2), torch.ones(2, 2), {2: BINARY}, "an index of 0 to 1"),
        (noise(2, 2), torch.ones(2, 2), {-1: BINARY}, "an index of 0 to 1"),
        (noise(2, 2), torch.ones(2, 2), {1: torch.ones(1)}, "constant"),
        (noise(2, 2), torch.ones(2, 2), {1: torch.ones(3)}, "constant"),
        (noise(2, 2), torch.ones(2, 2), {1: torch.tensor(1.0)}, "levels of column 1"),
        (noise(2, 2), torch.ones(2, 2), {1: torch.tensor([[0.0, 1.0]])}, "levels of column 1"),
        (noise(2, 2), torch.ones(2, 2), {1: torch.tensor([0.0, math.inf, 1.0])}, "finite"),
        (noise(2, 2), torch.tensor([[1.0, 1.0], [1.0, 0.4]]), {1: BINARY}, r"column 1: got a true value of 0\.4"),
        (torch.full((2, 2), math.nan), torch.ones(2, 2), {1: BINARY}, "column 1: got 2 of 2 values not finite"),
        (noise(2, 2), torch.full((2, 2), math.nan), {1: BINARY}, "column 1: got 2 of 2 values not finite"),
    ],
)
def test_columns_that_cannot_be_judged_are_refused(
    recovered: Tensor, truth: Tensor, columns: dict[int, Tensor], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        exactly_recovered(recovered, truth, columns)
