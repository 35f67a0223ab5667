"""Every study that the package brings: its audits can be planned, and its tables, curves and claims point at what they measure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from palimpsest.attack.leakage.adaptive_inversion import AdaptiveInversion
from palimpsest.attack.leakage.feature_inversion import FeatureInversion
from palimpsest.attack.leakage.label_inference import LabelInference
from palimpsest.attack.leakage.label_only_inference import LabelOnlyInference
from palimpsest.attack.leakage.two_update_inversion import TwoUpdateInversion
from palimpsest.audit.plan import Plan
from palimpsest.audit.released import UNKNOWN
from palimpsest.audit.stage import labels
from palimpsest.catalog import find, members, name_of
from palimpsest.options import make_plan
from palimpsest.reproduce import Asked, chosen
from palimpsest.studies.base import SCALES, Scale, Study, Where
from palimpsest.types import Scores

STUDIES = sorted(members("studies"))


def methods(plan: Plan) -> set[str]:
    """Labels of all that is unlearned, with and without a release before it."""
    bare = set(labels(plan))
    through = {f"{label}+{name_of(release)}" for label in bare for release in plan.releases}
    return bare | through | {label + UNKNOWN for label in through}


def made(name: str) -> Study:
    one: Study = find("studies", name)()
    return one


def everywhere(one: Study) -> Iterator[Where]:
    """All numbers that a study asks for."""
    for table in one.tables:
        yield from (row | column for row in table.rows.values() for column in table.columns.values())
    for curve in one.curves:
        yield from (where for points in curve.lines.values() for _, where in points)
    for tradeoff in one.tradeoffs:
        for settings in tradeoff.lines.values():
            for each in settings:
                yield from (each.use, each.leak, each.placebo, each.bare, each.bare_placebo)
    for claim in one.claims:
        yield from (where for _, where in claim.terms)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_every_audit_can_be_planned(name: str, scale: Scale) -> None:
    plans = chosen(made(name), Asked(scale))
    assert plans
    for words in plans.values():
        plan = make_plan(words)
        assert plan.scale == scale


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_what_is_asked_for_is_measured(name: str, scale: Scale) -> None:
    """Of each audit that runs at this scale: the method is unlearned, the attack made, the radius among its own."""
    one, plans = made(name), {part: make_plan(words) for part, words in chosen(made(name), Asked(scale)).items()}
    known = {part: methods(plan) for part, plan in plans.items()}
    asked = [where for where in everywhere(one) if where.part in plans]
    assert asked
    for where in asked:
        plan = plans[where.part]
        if where.target in ("unlearned", "bias-matched", "placebo"):
            assert where.method in known[where.part], where
        assert where.over in {"", "original", *known[where.part]}, where
        by, dot, _ = where.measure.removeprefix("cost.").partition(".")
        if dot and by not in map(name_of, plan.verifiers):
            attack = {name_of(each): each for each in plan.attacks}[by]
            if "epsilon" in where.at:
                assert where.at["epsilon"] in {0.0, *attack.epsilon}, where
            if where.target in ("placebo", "known-leak"):
                assert attack.compares, where
        assert where.measure, where
        assert where.target, where


@pytest.mark.parametrize("name", STUDIES)
def test_tables_and_claims_are_well_formed(name: str) -> None:
    one = made(name)
    assert one.paper
    assert one.about
    titles = [table.title for table in one.tables]
    assert len(set(titles)) == len(titles)
    for table in one.tables:
        assert set(table.printed) <= set(table.rows)
        assert all(len(numbers) <= len(table.columns) for numbers in table.printed.values())
    assert len({claim.text for claim in one.claims}) == len(one.claims)
    for claim in one.claims:
        side, bound = claim.bound
        if claim.printed is not None:
            beyond = claim.printed > bound if side == "above" else claim.printed < bound
            assert beyond, f"the paper's own numbers say so: {claim.text}"


@pytest.mark.parametrize("name", STUDIES)
def test_a_claims_printed_sum_is_that_of_the_printed_numbers(name: str) -> None:
    one = made(name)
    printed = {
        str(row | column): published / (row | column).times
        for table in one.tables
        for title, row in table.rows.items()
        for head, column in table.columns.items()
        if (published := table.published(title, head)) is not None
    }
    for claim in one.claims:
        terms = [(weight, printed.get(str(where))) for weight, where in claim.terms]
        if claim.printed is not None:
            assert all(value is not None for _, value in terms), claim.text
            assert sum(weight * (value or 0) for weight, value in terms) == pytest.approx(claim.printed), claim.text
        elif printed:
            assert any(value is None for _, value in terms), f"printed, but not summed: {claim.text}"


def deletions() -> Scores:
    """Two deleted records, as an attack that recovers them is scored."""
    names = ("mse", "psnr", "ssim", "perceptual", "rank", "colour_rank", "perceptual_rank", "loss", "exact")
    arrays = {name: np.array([0.2, 0.7]) for name in (*names, "exact_by_guess")}
    arrays |= {
        "confidence": np.array([0.5, 1.0]),
        "label": np.array([0, 1]),
        "label_right": np.array([1, 0]),
        "feature_error": np.full((2, 3), 0.1),
    }
    return Scores("record", np.array(["a", "b"]), arrays)


def requests() -> Scores:
    """A deletion of each of ten classes, as an attack that names them is scored."""
    told = {name: np.ones(10) for name in ("right", "margin", "queries", "ready", "accepted")}
    drops = {"truth": np.arange(10), "inferred": np.arange(10), "drop": np.ones((10, 10))}
    return Scores("request", np.arange(10).astype(str), {**told, **drops})


@pytest.mark.parametrize("name", [name for name in STUDIES if name.startswith("inversion")])
def test_studies_of_leaks_ask_for_measures_that_there_are(name: str) -> None:
    known = {
        measure.key
        for attack, scores in (
            (FeatureInversion(), deletions()),
            (AdaptiveInversion(), deletions()),
            (TwoUpdateInversion(), deletions()),
            (LabelInference(), requests()),
            (LabelOnlyInference(), requests()),
        )
        for measure in attack.measure(scores)
    }
    asked = {(where.measure, tuple(where.at.items())) for where in everywhere(made(name))}
    assert asked <= known | {("test_accuracy", ())}
