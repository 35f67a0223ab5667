"""Words for numbers, and averages over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from palimpsest.measures.intervals import share
from palimpsest.report.markdown import escape
from palimpsest.report.numbers import averaged
from palimpsest.report.wording import epsilon, interval, number, settings
from palimpsest.types import Measure


def test_shares_are_percentages_with_one_place() -> None:
    assert number("uma.forget_accuracy", 0.9312) == "93.1%"
    assert number("test_accuracy", -0.0312, signed=True) == "-3.1"
    assert number("confidence_membership.tpr_at_1pct_fpr", 0.004) == "0.4%"
    assert number("confidence_membership.auc", 0.51239) == "0.512"
    assert number("relearn_time.steps", 12.34) == "12.3"
    assert interval("test_accuracy", 0.5, 1.0) == "[50.0,\u00a0100.0]"
    assert interval("retrain_gap.js_divergence_test", -0.01, 0.0101, signed=True) == "[-0.010,\u00a0+0.010]"


def test_zero_has_no_sign() -> None:
    assert number("test_accuracy", -0.0001, signed=True) == "0.0"
    assert number("auc", 0.0, signed=True) == "0.000"
    assert interval("test_accuracy", -1e-9, 1e-9, signed=True) == "[0.0,\u00a00.0]"


def test_budgets_and_settings() -> None:
    assert epsilon(8 / 255, True) == "8/255"
    assert epsilon(0.0, True) == "0"
    assert epsilon(0.1, False) == "0.1"
    assert settings(
        {"name": "x", "revision": 1, "epsilon": (8 / 255, 0.1), "lr": 0.2, "model": {"name": "mlp", "width": 3}}
    ) == ("epsilon = (8/255, 0.1), lr = 0.2, model = mlp(width = 3)")
    assert settings({"epsilon": 1.0, "delta": 1e-4}) == "epsilon = 1, delta = 0.0001", "the ε of a certificate"


def test_markdown_takes_any_text_on_one_line() -> None:
    assert escape("a|b\n# c <b> & `d` *e* [f](g) _h_ i_j") == (
        r"a\|b # c &lt;b&gt; &amp; \`d\` \*e\* \[f\](g) \_h\_ i_j"
    )
    assert escape("# no heading") == r"\# no heading"
    assert escape("1. no list") == r"1\. no list"


def test_an_average_has_the_two_level_interval() -> None:
    rng = np.random.default_rng(0)
    seeds = [share("x_accuracy", rng.random(100) < p) for p in (0.2, 0.5, 0.8)]
    mean = averaged(seeds)
    assert mean.value == pytest.approx(np.mean([m.value for m in seeds]))
    assert mean.high - mean.low > max(m.high - m.low for m in seeds)  # the seeds' own spread counts


def test_an_average_of_certain_shares_keeps_its_doubt() -> None:
    seeds = [share("x_accuracy", np.zeros(100)) for _ in range(3)]
    mean = averaged(seeds)
    assert (mean.value, mean.low) == (0.0, 0.0)
    assert mean.high == pytest.approx(seeds[0].high)
    assert mean.high > 0.03


def test_without_scores_an_average_spans_the_seeds() -> None:
    seeds = [Measure("auc", 0.5, 0.4, 0.6, 10), Measure("auc", 0.7, 0.65, 0.8, 10)]
    mean = averaged(seeds)
    assert (mean.value, mean.low, mean.high, mean.n) == (pytest.approx(0.6), 0.4, 0.8, 20)
    assert averaged(seeds[:1]) is seeds[0]
