"""Intervals against scipy, against known answers, and by how often they cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from palimpsest.errors import BadInput
from palimpsest.measures import intervals
from palimpsest.measures.auc import auc
from palimpsest.measures.intervals import (
    REPLICATES,
    average,
    binomial,
    combination,
    difference,
    mean,
    resampled_means,
    resamples,
    share,
    statistic,
)
from palimpsest.measures.pooling import pooled
from palimpsest.measures.tpr_at_fpr import tpr_at_fpr
from palimpsest.types import Measure


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (1, 40), (13, 40), (250, 1000)])
def test_clopper_pearson_agrees_with_scipy(hits: int, n: int, level: float) -> None:
    expected = binomtest(hits, n).proportion_ci(level, method="exact")
    assert binomial(hits, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_is_exact_and_has_the_exact_interval() -> None:
    hits = np.array([True] * 13 + [False] * 27)
    found = share("accuracy", hits, at={"epsilon": 0.1})
    assert (found.value, found.n, found.at) == (13 / 40, 40, {"epsilon": 0.1})
    assert (found.low, found.high) == binomial(13, 40)
    assert found.replicates is not None
    assert found.replicates.shape == (REPLICATES,)
    assert found.replicates.std() == pytest.approx(np.sqrt(13 / 40 * 27 / 40 / 40), rel=0.1)


def test_the_bootstrap_of_a_mean_has_the_known_spread() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean("gap", values)
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    constant = mean("gap", np.full(10, 0.5))
    assert (constant.low, constant.high) == (0.5, 0.5)


def test_resampling_in_blocks_keeps_mean_and_spread() -> None:
    values = np.random.default_rng(1).exponential(1.0, 9001)
    blocked = resampled_means(values, blocks=1500)
    assert blocked.mean() == pytest.approx(values.mean(), abs=0.002)
    assert blocked.std() == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.12)


def test_equal_units_are_resampled_alike_and_groups_are_not() -> None:
    assert np.array_equal(resamples(50), resamples(50))
    assert not np.array_equal(resamples(50, "group0"), resamples(50, "group1"))
    assert resamples(50).min() == 0
    assert resamples(50).max() == 49


def test_a_statistic_of_two_groups() -> None:
    rng = np.random.default_rng(2)
    positives, negatives = rng.normal(1, 1, 80), rng.normal(0, 1, 120)
    found = statistic("auc", auc, positives, negatives)
    assert found.value == auc(positives, negatives)
    assert found.n == 200
    p, n = len(positives), len(negatives)
    q1, q2 = found.value / (2 - found.value), 2 * found.value**2 / (1 + found.value)  # Hanley and McNeil 1982
    a = found.value
    error = np.sqrt((a * (1 - a) + (p - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (p * n))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.25)
    assert found.replicates is not None
    assert len(found.replicates) == 200


def test_few_resamples_do_not_make_a_narrow_interval() -> None:
    """What 60 resamples span says nothing about the outer 0.3 % at each end; a normal distribution of their spread does."""
    values = np.random.default_rng(6).normal(size=400)
    few = statistic("mean", lambda x: float(x.mean()), values, replicates=60)
    assert few.replicates is not None
    found = combination("mean", [(1.0, [few])], level=1 - 0.05 / 8)
    assert (found.high - found.low) / 2 == pytest.approx(2.734 * few.replicates.std(), rel=1e-2)
    assert found.high - found.low > np.ptp(few.replicates), "wider than all of them"
    wide = combination("mean", [(1.0, [few]), (-1.0, [mean("mean", values)])], level=1 - 0.05 / 8)
    assert wide.low < 0 < wide.high


@pytest.mark.parametrize("of", [auc, tpr_at_fpr])
@pytest.mark.parametrize("ties", [False, True])
def test_resamples_taken_together_are_those_taken_one_by_one(
    of: Callable[..., Any], ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "TOGETHER", 700)  # three resamples at once, the last call with two
    rng = np.random.default_rng(5)
    groups = [values.round() if ties else values for values in (rng.normal(1, 1, 80), rng.normal(0, 1, 120))]
    together, single = (statistic("", of, *groups, together=how) for how in (True, False))
    np.testing.assert_array_equal(together.replicates, single.replicates)
    assert (together.value, together.low, together.high) == (single.value, single.low, single.high)


def test_identical_measures_differ_by_exactly_nothing() -> None:
    rng = np.random.default_rng(3)
    seeds = [share("accuracy", rng.random(60) < 0.4) for _ in range(3)]
    found = difference("accuracy", seeds, seeds)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.n == 180
    groups = rng.normal(size=30), rng.normal(size=40)
    same = [statistic("auc", auc, *groups)] * 2
    found = difference("auc", same, same)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_pairing_takes_out_what_both_models_share() -> None:
    """Two models right on the same hard and easy records: the difference is known far better than either share."""
    easy = np.random.default_rng(4).random(500) < 0.5
    worse = easy.copy()
    worse[np.flatnonzero(easy)[:10]] = False
    one, other = share("accuracy", easy), share("accuracy", worse)
    found = difference("accuracy", [one], [other])
    assert found.value == pytest.approx(0.02)
    assert 0.005 < found.low < 0.02 < found.high < 0.04
    assert found.high - found.low < 0.3 * (one.high - one.low)


def test_a_paired_difference_covers_the_truth_about_as_often_as_it_says() -> None:
    """Records' difficulty is shared by both models; the subject is better by a known 0.1. Forty intervals of 95 %
    would miss twice; seven misses have a probability of 0.3 %."""
    rng, covered, widths = np.random.default_rng(5), 0, []
    for _ in range(40):
        subjects, controls = [], []
        for _ in range(3):
            difficulty = rng.random(150)
            subjects.append(share("accuracy", difficulty < 0.6))
            controls.append(share("accuracy", difficulty + 0.1 * rng.random(150) * 2 < 0.6))
        found = difference("accuracy", subjects, controls)
        covered += found.low <= 0.1 <= found.high
        widths.append(found.high - found.low)
    assert covered >= 34
    assert np.mean(widths) < 0.15


def test_seeds_drawn_at_random_are_covered() -> None:
    """The truth is the mean over all seeds there could be; three are run. Of 200 intervals ten would miss."""
    rng, covered = np.random.default_rng(7), 0
    for _ in range(200):
        rates = 0.5 + 0.1 * rng.standard_normal(3)
        subjects = [share("accuracy", rng.random(300) < rate) for rate in rates]
        controls = [share("accuracy", rng.random(300) < 0.5) for _ in rates]
        found = difference("accuracy", subjects, controls)
        covered += found.low <= 0.0 <= found.high
    assert covered >= 181


def test_nothing_found_twice_is_not_certain() -> None:
    """0 of 121 on both sides: each rate may be up to 3 %, so may their difference."""
    none = [share("accuracy", np.zeros(121)) for _ in range(3)]
    found = difference("accuracy", none, none)
    assert found.value == 0.0
    assert found.high == -found.low == pytest.approx(none[0].high)


def test_a_share_at_its_end_brings_its_exact_interval_at_the_level_asked_for() -> None:
    """All of 500 on one side, half on the other: what is not known of the first is not left out."""
    every, half = share("accuracy", np.ones(500)), share("accuracy", np.arange(500) % 2)
    alone = average("accuracy", [every], level=0.999)
    assert alone.low == pytest.approx(binomial(500, 500, 0.999)[0])
    assert alone.low < average("accuracy", [every]).low < alone.high == 1.0
    found, without = difference("accuracy", [every], [half]), average("accuracy", [half])
    assert found.value - found.low == pytest.approx(np.hypot(without.high - 0.5, 1 - every.low), rel=1e-6)


def test_several_controls_of_the_same_records_are_no_more_records() -> None:
    """0 of 500 on each of four models: their mean is known no better than one model's share."""
    none = share("accuracy", np.zeros(500))
    together = pooled([none] * 4)
    assert together.n == 500
    assert average("accuracy", [together]).high == pytest.approx(average("accuracy", [none]).high)


def test_a_combination_weighs_its_terms() -> None:
    """a − 0.3·b: value and spread as for weighted independent shares; the bounds as far as shares can go."""
    rng = np.random.default_rng(8)
    a, b = share("a", rng.random(400) < 0.4), share("b", rng.permutation(400) < 240)
    found = combination("a − 0.3 b", [(1.0, [a]), (-0.3, [b])])
    assert found.value == pytest.approx(a.value - 0.3 * 0.6)
    error = np.sqrt((a.value * (1 - a.value) + 0.09 * 0.24) / 400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    nothing, all_of_it = share("a", np.zeros(3)), share("b", np.ones(3))
    end = combination("end", [(1.0, [nothing]), (-0.3, [all_of_it])], level=0.9999)
    assert end.low == pytest.approx(-0.3)
    with pytest.raises(BadInput, match="one per seed in each term"):
        combination("x", [(1.0, [a]), (1.0, [a, b])])


def test_seeds_that_disagree_widen_the_interval() -> None:
    def measures(*hits: int) -> list[Measure]:
        return [share("accuracy", np.arange(200) < count) for count in hits]

    steady = difference("x", measures(100, 100, 100), measures(50, 50, 50))
    swinging = difference("x", measures(50, 100, 150), measures(50, 50, 50))
    assert steady.value == swinging.value == pytest.approx(0.25)
    assert swinging.high - swinging.low > 2 * (steady.high - steady.low)


@pytest.mark.parametrize("hits", [0, 1, 18, 30])
def test_seeds_of_one_target_each_are_a_share_of_targets(hits: int) -> None:
    """Thirty poisons with a target each: as exact as thirty targets, and no narrower."""
    found = average("success", [share("success", np.array([seed < hits])) for seed in range(30)])
    low, high = binomial(hits, 30)
    assert found.value == pytest.approx(hits / 30)
    assert found.low <= low + 1e-9
    assert found.high >= high - 1e-9
    assert found.high - found.low < high - low + 0.03


def test_controls_that_disagree_are_half_a_hit_each() -> None:
    pooled = [replace(share("success", np.array([True])), value=0.5) for _ in range(30)]
    found = average("success", pooled)
    low, high = binomial(15, 30)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


def test_an_average_over_seeds() -> None:
    seeds = [share("accuracy", np.arange(100) < count, at={"epsilon": 0.1}) for count in (40, 50, 60)]
    found = average("accuracy", seeds)
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.46
    assert found.high > 0.54
    assert found.at == {"epsilon": 0.1}


def test_nothing_to_measure_is_bad_input() -> None:
    for wrong in (np.array([]), np.array([1.0, np.nan]), np.array([np.inf])):
        with pytest.raises(BadInput):
            share("accuracy", wrong)
        with pytest.raises(BadInput):
            mean("gap", wrong)
        with pytest.raises(BadInput):
            statistic("auc", auc, wrong, np.ones(3))
    one = share("accuracy", np.ones(3))
    for subjects, controls in (([], []), ([one], []), ([one], [one, one])):
        with pytest.raises(BadInput, match="one control per subject"):
            difference("accuracy", subjects, controls)
    with pytest.raises(BadInput, match="without bootstrap replicates"):
        difference("accuracy", [Measure("accuracy", 0.5, 0.4, 0.6, 3)], [one])


def test_of_these_seeds_alone_their_spread_is_not_added() -> None:
    """Two models that differ, each certain: of others nothing is known, of these two everything."""
    pair = [mean("a", np.full(50, level)) for level in (0.2, 0.8)]
    wide, narrow = (combination("a", [(1.0, pair)], fixed=fixed) for fixed in (False, True))
    assert wide.low < 0.2 < 0.5 < 0.8 < wide.high
    assert (narrow.low, narrow.value, narrow.high) == pytest.approx((0.5, 0.5, 0.5))
    spread = [mean("a", np.random.default_rng(seed).uniform(0, 1, 40)) for seed in range(3)]
    pooled = mean("a", np.concatenate([np.random.default_rng(seed).uniform(0, 1, 40) for seed in range(3)]))
    found = combination("a", [(1.0, spread)], fixed=True)
    assert (found.low, found.high) == pytest.approx((pooled.low, pooled.high), abs=0.02)
