"""Every study that the package brings: its audits can be planned, and its tables, curves and claims point at what they measure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from palimpsest.attack.leakage.adaptive_inversion import AdaptiveInversion
from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.leakage.feature_inversion import FeatureInversion
from palimpsest.attack.leakage.label_inference import LabelInference
from palimpsest.attack.leakage.label_only_inference import LabelOnlyInference
from palimpsest.attack.leakage.two_update_inversion import TwoUpdateInversion
from palimpsest.attack.poisoning.gaussian import Gaussian
from palimpsest.attack.poisoning.gradient_canceling import GradientCanceling
from palimpsest.attack.poisoning.gradient_matching import GradientMatching
from palimpsest.attack.poisoning.instruction import Instruction
from palimpsest.audit.plan import Plan
from palimpsest.audit.released import UNKNOWN
from palimpsest.audit.stage import labels
from palimpsest.catalog import find, members, name_of
from palimpsest.data.diagnoses import Diagnoses
from palimpsest.data.digits import Digits
from palimpsest.learn.loop import trainable
from palimpsest.measures.intervals import combination
from palimpsest.models.base import blocks
from palimpsest.options import make_plan
from palimpsest.reproduce import Asked, chosen
from palimpsest.rng import Rng
from palimpsest.studies.base import SCALES, Scale, Study, Where
from palimpsest.types import Scores
from palimpsest.unlearn.catastrophic_forgetting_k import CatastrophicForgettingK
from palimpsest.verify.accuracy import Accuracy
from palimpsest.verify.memorisation import Memorisation

STUDIES = sorted(members("studies"))
POISONING = [name for name in STUDIES if name.startswith("poisoning")]


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
    assert set(one.pictured) <= {part for scale in SCALES for part in one.parts(scale)}
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


def count_of_blocks(plan: Plan) -> int:
    """Of the plan's model, on data of the same kind."""
    split = Digits(limit=100).load() if isinstance(plan.data, Digits) else Diagnoses().load()
    model = plan.model.untrained(plan.model.task(split), Rng(0))
    return sum(bool(trainable(block)) for block in blocks(model))


@pytest.mark.parametrize("name", POISONING)
def test_methods_of_the_last_blocks_leave_some_frozen(name: str) -> None:
    """At small scale k is below the number of blocks wherever there are two or more: else CFk is GD, and EUk is retraining. Claims
    on the two are read from such models alone."""
    one, leaves = made(name), set[str]()
    for part, words in chosen(one, Asked("small")).items():
        plan = make_plan(words)
        last = [method for method in plan.unlearners if isinstance(method, CatastrophicForgettingK)]
        count = count_of_blocks(plan) if last else 0
        assert all(method.k < count or count == 1 for method in last), (part, count)
        leaves |= {part} if count > 1 else set()
    asked = [where for claim in one.claims for _, where in claim.terms]
    assert {
        where.part for where in asked if where.method in ("catastrophic_forgetting_k", "exact_unlearning_k")
    } <= leaves


def deletions() -> Scores:
    """Two deleted records, as an attack that recovers them is scored."""
    names = ("mse", "psnr", "ssim", "perceptual", "lpips", "rank", "colour_rank", "perceptual_rank", "loss", "exact")
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


def told(count: int, **arrays: list[float] | list[bool] | list[int]) -> Scores:
    """Scores of so many records, each array repeated."""
    return Scores("record", np.arange(count).astype(str), {name: np.resize(v, count) for name, v in arrays.items()})


def test_studies_of_poisons_ask_for_measures_that_there_are() -> None:
    """As attacks and verifiers make them of scores written down by hand, and what the record tells of cost."""
    group = [0, 1, 2, 3]
    made_of = (
        (GradientMatching(), told(2, hit=[True, False], true=[False, True], confidence=[0.9], lead=[0.8], margin=[3.0],
                                  least_margin=[1.0], change=[0.1], loss=[0.4])),
        (GradientCanceling(), told(4, wrong=[True, False], residual=[0.2], change=[1.0])),
        (Gaussian(), told(8, product=[-1.0, 0.5], detected=[True])),
        (Instruction(), told(4, hit=[True], without=[True, False], confidence=[0.7])),
        (ConfidenceMembership(), told(8, group=group, confidence=[0.6, 0.5], called_member=[1, 0])),
        (Accuracy(), told(8, group=group, correct=[True])),
        (Memorisation(), told(8, group=group, said=[0.5], extracted=[0.1])),
    )  # fmt: skip
    known = {measure.key for by, scores in made_of for measure in by.measure(scores)}
    known |= {("cost.samples", ())}
    for name in POISONING:
        asked = {(where.measure, tuple(where.at.items())) for where in everywhere(made(name))}
        assert asked <= known, name


def test_a_class_named_by_every_victim_can_be_told_from_three_of_four() -> None:
    """Ten exact answers a victim leave so much open that by their share alone no outcome holds a claim."""
    every = LabelInference().measure(requests())
    one = made("inversion_table3")
    level = 1 - 0.05 / len(one.claims)
    for claim in (claim for claim in one.claims if "10 of 10" in claim.text):
        found = [next(m for m in every if m.key == (w.measure, tuple(w.at.items()))) for _, w in claim.terms]
        terms = [(weight, [measure] * 5) for (weight, _), measure in zip(claim.terms, found, strict=True)]
        assert combination(claim.text, terms, level=level).low > claim.bound[1]
    whole = next(m for m in every if m.key == ("label_inference.accuracy", ()))
    assert combination("share", [(1.0, [whole] * 5)], level=level).low < 0.6


@pytest.mark.parametrize("name", [name for name in STUDIES if name.startswith("inversion")])
def test_studies_of_leaks_do_not_depend_on_the_clock(name: str) -> None:
    for scale in SCALES:
        for words in chosen(made(name), Asked(scale)).values():
            ways = [attack.batching for attack in make_plan(words).attacks if hasattr(attack, "batching")]
            assert "probe" not in ways
