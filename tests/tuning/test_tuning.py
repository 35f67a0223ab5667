"""Tuning: one budget for all, other seeds and records than those reported, stopped and resumed to the same settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.samplers import RandomSampler

from palimpsest import record as records
from palimpsest import tuning
from palimpsest.audit.requests import chosen_requests
from palimpsest.audit.runnable import runnable
from palimpsest.audit.stage import homes
from palimpsest.audit.workshop import Made, Workshop
from palimpsest.cli import main
from palimpsest.data.digits import Digits
from palimpsest.errors import BadInput
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.options import assignments, make_plan
from palimpsest.pipeline import audit
from palimpsest.presets import choices, read
from palimpsest.store import Store
from palimpsest.task import Classification
from palimpsest.tuning.arena import Arena, elsewhere, for_tuning
from palimpsest.tuning.search import Place, _most
from palimpsest.tuning.space import Space
from palimpsest.types import Cost
from palimpsest.unlearn.amnesiac import Amnesiac
from palimpsest.unlearn.deltagrad import DeltaGrad
from palimpsest.unlearn.exact_unlearning_k import ExactUnlearningK
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.fisher import Fisher
from palimpsest.unlearn.negative_gradient import NegativeGradient
from palimpsest.unlearn.random_label import RandomLabel
from palimpsest.unlearn.retrain import Retrain
from palimpsest.unlearn.salun import SalUn
from tests.audit.small import plan

RECIPE_EPOCHS = 3


@pytest.fixture
def small_plan():
    torch.set_num_threads(1)
    return plan(model=Linear(), unlearners=(Finetune(batch_size=64), SalUn(batch_size=64)), controls=1)


def test_the_space_is_what_the_fields_declare_within_the_budget() -> None:
    recipe = plan().recipe
    space = Space.of(Finetune(epochs=50, lr=7.0), replace(recipe, epochs=20), 0.2)
    assert space == Space({"lr": (1e-3, 0.3)}, 4)
    assert space.start(Finetune(epochs=50, lr=7.0)) == {"lr": 7.0, "epochs": 4}, "its own, whatever is searched"
    assert not Space.of(Retrain(), recipe, 0.2)
    repaired = Space.of(Amnesiac(), replace(recipe, epochs=20), 0.2)
    assert (repaired.passes, repaired.epochs, repaired.fewest) == ("repair_epochs", 4, 0)
    assert repaired.start(Amnesiac()) == {"lr": 0.01, "repair_epochs": 0}


def test_a_weight_near_1_is_tried_by_its_distance_from_1() -> None:
    """NegGrad+'s published weights are 0.95 and 0.9999: between 0.99 and 1 lie four of the scale's five decades."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, study = Space.of(NegativeGradient(), plan().recipe, 0.2), optuna.create_study(sampler=RandomSampler(0))
    drawn = [space.suggest(study.ask())["alpha"] for _ in range(60)]
    assert all(0.8 <= alpha <= 0.99999 for alpha in drawn)
    assert sum(alpha > 0.99 for alpha in drawn) > 30


def test_whole_numbers_are_tried_as_such() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, study = Space.of(DeltaGrad(), plan().recipe, 0.2), optuna.create_study(sampler=RandomSampler(0))
    drawn = [space.suggest(study.ask())["period"] for _ in range(40)]
    assert all(isinstance(period, int) and 2 <= period <= 50 for period in drawn)
    assert len(set(drawn)) > 10
    DeltaGrad(**space.suggest(study.ask()))


def test_tuning_never_meets_what_is_reported() -> None:
    """Other random records for each reported seed; another class for a class; validation records in place of test records."""
    split = Digits(limit=300).load()
    task = Classification.of(split)
    for forget in ("random=20", "class=0", "class=1,2", "class=0:0.5"):
        asked = plan(forget=(forget,), seeds=(0, 1, 2))
        reported = {name for seed in asked.seeds for r in chosen_requests(asked, split, task, seed) for name in r.ids}
        found = [elsewhere(asked, split, task, seed) for seed in (1000, 1001)]
        assert all(reported.isdisjoint(request.ids.tolist()) for request in found)
        if forget == "random=20":
            assert [len(request) for request in found] == [20, 20]
            assert found[0].ids.tolist() != found[1].ids.tolist()
        else:
            targets = split.train.only(found[0].ids.tolist()).targets.numpy()
            whole = sum((split.train.targets.numpy() == c).sum() for c in np.unique(targets))
            assert len(found[0]) == pytest.approx(whole / 2 if ":" in forget else whole, abs=0.6)
            assert len(np.unique(targets)) == forget.count(",") + 1
    aside = for_tuning(split)
    assert not set(aside.test.ids) & set(split.test.ids)
    assert aside.fingerprint != split.fingerprint


def test_tuning_keeps_away_from_later_requests_too() -> None:
    split = Digits(limit=300).load()
    asked, task = plan(forget=("random=20", "random=60"), seeds=(0, 1)), Classification.of(split)
    reported = {name for seed in asked.seeds for r in chosen_requests(asked, split, task, seed) for name in r.ids}
    assert len(reported) > 100
    for seed in range(1000, 1008):
        assert reported.isdisjoint(elsewhere(asked, split, task, seed).ids.tolist())


def test_an_arena_has_controls_without_its_forget_set_and_never_looks_at_test_records(tmp_path: Path) -> None:
    asked, split = plan(forget=("random=20",), controls=2), Digits(limit=300).load()
    shop = Workshop(Store(tmp_path), Classification.of(split), split.fingerprint)
    arena = Arena.build(asked, homes(asked)[0], split, shop, 1000)
    forgotten = set(arena.stage.requests[0].ids.tolist())
    assert len(forgotten) == 20
    assert forgotten <= set(arena.stage.original.ids.tolist())
    assert [forgotten & set(control.ids.tolist()) for control in arena.stage.controls] == [set(), set()]
    assert set(arena.stage.split.test.ids.tolist()) == set(split.validation.ids.tolist())


def test_the_first_trial_is_the_method_as_it_stands(tmp_path: Path) -> None:
    """Also where a searched field has no value of its own, as EU-k's learning rate, which is the recipe's."""
    asked = plan(forget=("class=0",), unlearners=(ExactUnlearningK(k=1),), controls=1, recipe=Recipe(epochs=3))
    (tuned,) = tuning.tune(asked, Store(tmp_path), trials=2, seeds=1, share=0.34)
    assert tuned.trials[0].settings == {"lr": None, "epochs": 1}
    assert tuned.trials[1].settings["lr"] is not None


def test_nothing_that_can_be_run_is_refused(tmp_path: Path) -> None:
    asked = replace(plan(model=Linear(), unlearners=(ExactUnlearningK(),)), optional=frozenset({"exact_unlearning_k"}))
    with pytest.raises(BadInput, match="tune: got no method that can be run here"):
        tuning.tune(asked, Store(tmp_path), trials=1)


def test_too_few_records_are_left_to_tune_on() -> None:
    split = Digits(limit=300).load()
    with pytest.raises(BadInput, match="no reported seed forgets"):
        elsewhere(plan(forget=("random=0.7",)), split, Classification.of(split), 1000)


def test_every_method_has_the_same_trials_within_the_budget(small_plan, tmp_path: Path) -> None:
    found = tuning.tune(small_plan, Store(tmp_path), trials=4, seeds=1, share=0.4)
    assert [(tuned.label, len(tuned.trials)) for tuned in found] == [("finetune", 4), ("salun", 4)]
    assert found[0].trials[0].settings == {"lr": 0.01, "epochs": 1}, "the first trial is the method's own"
    for tuned in found:
        assert tuned.best.total == min(tried.total for tried in tuned.trials)
        assert set(tuned.best.gap) == {*tuning.arena.PARTS}


def test_a_stopped_run_goes_on_to_the_same_settings(
    small_plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"trials": 3, "seeds": 1, "share": 0.4}
    whole = tuning.tune(small_plan, Store(tmp_path / "whole"), **options)
    made, real = [], Arena.unlearned

    def dying(self, unlearner):
        made.append(unlearner)
        if len(made) == 4:
            raise KeyboardInterrupt
        return real(self, unlearner)

    with monkeypatch.context() as patch:
        patch.setattr(Arena, "unlearned", dying)
        with pytest.raises(KeyboardInterrupt):
            tuning.tune(small_plan, Store(tmp_path / "stopped"), **options)
    kept, keep = [], Workshop._keep
    monkeypatch.setattr(Workshop, "_keep", lambda self, spec, *rest: kept.append(spec) or keep(self, spec, *rest))
    again = tuning.tune(small_plan, Store(tmp_path / "stopped"), **options)
    assert [tuned.told() for tuned in again] == [tuned.told() for tuned in whole]
    assert len(kept) == 3, "those of the first three trials, the original and the control were there"


def test_a_run_beyond_the_budget_and_a_failed_one_have_reasons_and_no_number(tmp_path: Path) -> None:
    asked = plan(unlearners=(SalUn(batch_size=64), Finetune(batch_size=64, momentum=0.99)), controls=1)
    found = tuning.tune(asked, Store(tmp_path), trials=1, seeds=1, share=0.2)
    assert "allowed" in found[0].trials[0].reason
    assert found[0].best is None
    assert found[0].told()["tuned"] == {}


def test_passes_shrink_to_the_budget(tmp_path: Path) -> None:
    """NegGrad+'s pass goes over as many forgotten records as retained ones: no trial is lost on passes that it cannot afford."""
    methods = (NegativeGradient(batch_size=64), Finetune(batch_size=64))
    asked = plan(unlearners=methods, controls=1, recipe=Recipe(epochs=10, batch_size=64))
    negative, finetune = tuning.tune(asked, Store(tmp_path), trials=5, seeds=1, share=0.2)
    assert {tried.settings["epochs"] for tried in negative.trials} == {1}
    assert 2 in {tried.settings["epochs"] for tried in finetune.trials}
    assert not [tried.reason for tried in negative.trials if "allowed" in tried.reason]


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_no_trial_with_a_number_costs_more_than_its_share(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass of SalUn costs 3 % more than one of training here, two cost 1.5 % more than two: too much for a share of one
    or two in five. Passes of random labels cost as much as those of training, and just fit."""
    spent, gap = {}, Arena.gap

    def seen(self: Arena, made: Made) -> dict[str, float]:
        spent.setdefault(len(spent), made.cost.samples / self.stage.original.cost.samples)
        return gap(self, made)

    monkeypatch.setattr(Arena, "gap", seen)
    methods = (SalUn(batch_size=64), RandomLabel(batch_size=64))
    asked = plan(model=Linear(), forget=("random=8",), unlearners=methods, controls=1, recipe=Recipe(epochs=5))
    salun, random_label = tuning.tune(asked, Store(tmp_path), trials=4, seeds=1, share=share)
    assert max(spent.values()) == share, "the dearest is as dear as is allowed, and no dearer"
    assert random_label.trials[0].settings["epochs"] == round(5 * share)
    assert not any(tried.reason for tried in random_label.trials)
    if share == 0.2:
        assert salun.best is None
        assert all("allowed" in tried.reason for tried in salun.trials), "its one pass is too dear, and says so"
    else:
        assert [tried.settings["epochs"] for tried in salun.trials] == [1, 1, 1, 1]
        assert not any(tried.reason for tried in salun.trials)


def test_a_share_is_taken_as_it_is_written() -> None:
    """0.29 · 100 is 28.999… in floating point."""
    found = [Place("", 1000, share).allowed(Cost(samples=100)) for share in (0.29, 0.3, 0.295, 1.0)]
    assert found == [29, 30, 29, 100]


def test_samples_shrink_to_the_budget(tmp_path: Path) -> None:
    (tuned,) = tuning.tune(plan(unlearners=(Fisher(),), controls=1), Store(tmp_path), trials=1, seeds=1, share=0.2)
    assert 5 < tuned.best.settings["samples"] < 20


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (lambda n: 2 * n, 500),
        (lambda n: 300 + 2 * n, 350),
        (lambda n: n // 10, 4000),
        (lambda n: int(n**1.2), 316),
        (lambda n: 50 * n, 20),
        (lambda n: 5000, 1),
    ],
)
def test_the_most_samples_are_found_from_below(cost: Callable[[int], int], expected: int) -> None:
    """Never by trying what costs far more than is allowed, as a curvature over all records would."""
    tried: list[int] = []

    def spent(samples: int) -> int:
        tried.append(samples)
        return cost(samples)

    found = _most(spent, 62, 4000, 1000)
    assert found == pytest.approx(expected, rel=0.15)
    assert cost(found) <= 1000 or found == 1
    assert len(tried) <= 5
    assert max(map(cost, tried)) <= 5000


def test_the_file_is_what_an_audit_takes(tmp_path: Path) -> None:
    words = choices(
        {
            "data": "digits", "limit": 300, "model": "convnet", "recipe": {"epochs": 3, "batch_size": 64},
            "forget": ["class=0"], "unlearn": ["finetune", "exact_unlearning_k"], "attack": ["confidence_membership"],
            "verify": [], "seeds": 1, "controls": 1, "threads": 1, "settings": {"convnet": {"width": 2}},
        }
    )  # fmt: skip
    asked, store = make_plan(words), Store(tmp_path / "store")
    found = tuning.tune(asked, store, trials=2, seeds=1, share=0.34)
    out = tmp_path / "new" / "tuned.json"
    tuning.write(out, words, asked, found, seeds=1, share=0.34)
    chosen = read(str(out))
    again = make_plan(chosen)
    assert again.unlearners[0] == replace(Finetune(), **found[0].best.settings)
    assert again.unlearners[2] == ExactUnlearningK(), "EU-k's full schedule as a row of its own"
    record = audit(again, store, tmp_path / "out")
    assert set(record.settings["tuned"]) == {"finetune", "exact_unlearning_k"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Default against tuned" in page
    assert "At most, of training" in page
    assert "34%" in page
    assert json.loads(out.read_text(encoding="utf-8"))["tuned"]["finetune"]["trials"] == 2
    assert choices({"forget": ["class=1"]}).over(chosen).tuned == {}, "tuned for another request"
    assert make_plan(choices({"seeds": 5}).over(chosen)).seeds == (0, 1, 2, 3, 4), "every seed forgets the same class"


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ("finetune.lr=0.5", {"salun"}),
        ("finetune.momentum=0.5", {"salun"}),
        ("finetune#2.lr=0.5", {"finetune", "salun"}),
        ("uma.steps=5", {"finetune", "salun"}),
        ("convnet.width=8", set()),
        ("model.width=8", set()),
        ("digits.validation=0.2", set()),
        ("finetuned.epochs=1", set()),
        ("recipe.epochs=1", set()),
        ("my_module:make.width=8", set()),
    ],
)
def test_settings_that_are_changed_are_no_longer_the_tuned_ones(changed: str, left: set[str]) -> None:
    told = {"finetune": {"trials": 2}, "salun": {"trials": 2}}
    settings = {"convnet": {"width": 2}, "finetune": {"lr": 0.1}, "salun": {"lr": 0.1}}
    model = "my_module:make" if changed.startswith("my_module") else "convnet"
    base = choices({"data": "digits", "model": model, "settings": settings, "tuned": told})
    assert choices({"settings": assignments([changed])}).over(base).tuned.keys() == left
    assert choices({"settings": {"finetune": {"lr": 0.1}, "convnet": {"width": 2}}}).over(base).tuned == base.tuned


def test_further_seeds_than_tuning_kept_apart_are_refused(tmp_path: Path) -> None:
    """With random records a fourth seed could forget what the settings were tuned on."""
    words = choices(
        {"data": "digits", "model": "convnet", "forget": ["random=20"], "unlearn": ["finetune"], "seeds": 3}
    )
    asked = make_plan(words)
    tried = tuning.Tuned("finetune", (tuning.Tried({"lr": 0.01}, {"retain_accuracy": 0.1}),))
    tuning.write(tmp_path / "tuned.json", words, asked, [tried], seeds=1, share=0.2)
    chosen = read(str(tmp_path / "tuned.json"))
    assert len(make_plan(chosen).seeds) == 3
    with pytest.raises(BadInput, match=r"--seeds: got 4, expected at most 3, .* tune again with --seeds 4"):
        make_plan(choices({"seeds": 4}).over(chosen))


@pytest.mark.parametrize(
    "told", [3, {"trials": "many"}, {"trials": 1, "apart": "x"}, {"trials": 1, "tuned": {"gap": {"a": "b"}}}]
)
def test_a_damaged_account_of_tuning_is_refused(told: object) -> None:
    with pytest.raises(BadInput, match=r"tuned\.finetune"):
        choices({"data": "digits", "tuned": {"finetune": told}})


def test_a_file_for_all_methods_runs_where_one_of_them_is_not_for_the_model(tmp_path: Path) -> None:
    """A linear model has one block, too few for EU-k, so that its full schedule is no row either."""
    words = choices(
        {"data": "digits", "limit": 100, "model": "linear", "forget": ["class=0"], "unlearn": ["all"], "seeds": 1}
    )
    tried = tuning.Tuned("finetune", (tuning.Tried({"lr": 0.01}, {"retain_accuracy": 0.1}),))
    tuning.write(tmp_path / "tuned.json", words, make_plan(words), [tried], seeds=1, share=0.2)
    split = Digits(limit=100).load()
    again = runnable(make_plan(read(str(tmp_path / "tuned.json"))), split, Classification.of(split))
    assert {"exact_unlearning_k", "catastrophic_forgetting_k"} <= again.skipped.keys()


def test_each_method_is_tuned_on_models_of_its_own_learner(tmp_path: Path) -> None:
    words = choices(
        {
            "data": "digits", "limit": 200, "model": "mlp", "recipe": {"epochs": 6}, "forget": ["random=20"],
            "unlearn": ["all"], "seeds": 1, "controls": 1, "threads": 1,
        }
    )  # fmt: skip
    asked = make_plan(words)
    asked = replace(asked, unlearners=tuple(u for u in asked.unlearners if u.needs or isinstance(u, Finetune)))
    found = tuning.tune(asked, Store(tmp_path), trials=1, seeds=1)
    assert [tuned.label for tuned in found] == ["finetune", "amnesiac", "deltagrad"]
    assert all(tuned.best for tuned in found[:2]), [tuned.trials for tuned in found]
    assert "allowed" in found[2].trials[0].reason, "its default costs more than a fifth of training"


@pytest.mark.parametrize("changes", [{"trials": 0}, {"seeds": 0}, {"share": 0.0}, {"share": float("nan")}])
def test_refused(changes: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=next(iter(changes))):
        tuning.tune(plan(), Store(tmp_path), **changes)


def test_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a range to search"):
        tuning.tune(plan(unlearners=(Retrain(),)), Store(tmp_path))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`tune` says what has nothing to search, and `audit` takes its file."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"epochs": 3, "batch_size": 64}')
    case = ["--data", "digits", "--limit", "300", "--model", "convnet", "--set", "convnet.width=2"]
    case += ["--recipe", str(recipe), "--forget", "class=0"]
    store, file = ["--store", str(tmp_path / "store"), "--threads", "1"], tmp_path / "tuned.json"
    asked = ["--unlearn", "finetune,retrain", "--trials", "2", "--tuning-seeds", "1", "--share", "0.34"]
    assert main(["tune", *case, *asked, "--seeds", "1", "--out", str(tmp_path / "tuned.txt"), *store]) == 2
    assert "expected a file name that ends in .json" in capsys.readouterr().err
    assert main(["tune", *case, *asked, "--seeds", "1", "--out", str(file), *store]) == 0
    said = capsys.readouterr()
    assert "retrain: nothing to search" in said.out + said.err
    assert "finetune: gap" in said.out + said.err
    found = json.loads(file.read_text(encoding="utf-8"))
    assert set(found["tuned"]) == {"finetune"}
    assert (found["forget"], found["limit"]) == (["class=0"], 300)
    plain = ["--attack", "confidence_membership", "--seeds", "1", "--controls", "1"]
    assert main(["audit", "--settings", str(file), *plain, "--out", str(tmp_path / "out"), *store]) == 0
    made = records.read(tmp_path / "out")
    used = next(cell.settings for cell in made.cells if cell.unlearner == "finetune")
    assert used["lr"] == found["settings"]["finetune"]["lr"]
