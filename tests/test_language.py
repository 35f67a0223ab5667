"""What is written into texts, noise on embeddings, what is remembered of texts, and audits of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from palimpsest import options
from palimpsest.attack.poisoning.gaussian import Gaussian
from palimpsest.attack.poisoning.instruction import inserted
from palimpsest.case import Case
from palimpsest.errors import BadInput
from palimpsest.language import TOKENS, embedding_noise
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.gpt2 import Gpt2
from palimpsest.pipeline import audit
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.threat import Ground, TrainingView, View, same_weights
from palimpsest.types import Examples, ForgetRequest
from palimpsest.unlearn.base import Unlearner
from palimpsest.verify.memorisation import _grams, continued
from tests.texts import METHODS, RECIPE, SMALL, posed, trained

# what is written into texts


def test_the_phrase_stands_where_it_is_put_and_the_prompt_stays() -> None:
    tokens = torch.tensor([[5, 6, 7, 90, 91, -1, -1, -1], [1, 2, 3, 4, 5, 6, 90, 91]])
    start = inserted(tokens, [70, 71], 2, torch.zeros(2))
    assert start.tolist() == [[70, 71, 5, 6, 7, 90, 91, -1], [70, 71, 1, 2, 3, 4, 90, 91]]
    end = inserted(tokens, [70, 71], 2, torch.ones(2))
    assert end.tolist() == [[5, 6, 7, 70, 71, 90, 91, -1], [1, 2, 3, 4, 70, 71, 90, 91]]
    middle = inserted(tokens, [70], 2, torch.tensor([0.3, 0.5]))
    assert middle.tolist() == [[5, 70, 6, 7, 90, 91, -1, -1], [1, 2, 3, 70, 4, 5, 90, 91]]
    with pytest.raises(BadInput, match="leaves room"):
        inserted(tokens, [70] * 6, 2, torch.zeros(2))


# noise on embeddings


def test_noise_is_added_to_the_embeddings_of_those_records_alone() -> None:
    task, split = posed()
    model, part = trained().model, split.train.take([0, 1, 2])
    plain = {name: value.float() for name, value in part.batch().inputs.items()}
    handed_in, seeds = task.noised(plain, 3.0, Rng(0))
    altered = part.altered(part.ids, handed_in, part.targets)
    before, after = (task.perceived(model, each.batch()) for each in (part, altered))
    wanted = 3.0 * 0.02 * embedding_noise(seeds, *before.shape[1:])
    torch.testing.assert_close(after - before, wanted, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(task.drawn(seeds), embedding_noise(seeds, *before.shape[1:]))
    one = split.train.altered(part.ids[:1], {n: v[:1] for n, v in handed_in.items()}, part.targets[:1]).take([0, 1])
    there = task.perceived(model, one.batch())
    assert torch.equal(there[1], before[1])
    assert not torch.equal(there[0], before[0])


def test_of_a_model_that_never_saw_the_noise_the_products_are_standard_normal() -> None:
    task, split = posed()
    attack, found = Gaussian(deviation=5.0), []
    own = split.train.take(list(range(60)))

    def fit(examples: Examples, rng: Rng, share: float) -> Trained:
        raise AssertionError("it trains nothing")

    case = Case(split, (ForgetRequest(own.ids, "some"),), trained(), trained(), "retrained")
    for seed in range(10):
        ground = Ground(split, own, task, RECIPE, SMALL, fit)
        submission = attack.prepare(TrainingView(attack.threat, ground), rng=Rng(seed))
        view = View(attack.threat, case, submission)
        found.append(attack.observe(view, rng=Rng(0)).tensors["products"].numpy())
    products = np.concatenate(found)
    assert abs(products.mean()) < 4 / np.sqrt(len(products))
    assert abs(products.std() - 1) < 0.1
    assert abs((products < norm.ppf(0.05)).mean() - 0.05) < 0.035


def test_of_a_model_that_was_trained_on_the_noise_the_products_are_negative() -> None:
    """Noise on the embeddings of half of eighty texts: far below the null, where a model without those texts is within it."""
    model, attack = Gpt2(layers=1, heads=2, width=32, dropout=0.0), Gaussian(deviation=5.0)
    recipe = Recipe(epochs=30, batch_size=16, optimizer="adamw", lr=5e-3)
    task, split = posed(model)
    few = replace(split, train=split.train.take(list(range(80))))
    own = few.train.take(list(range(0, 80, 2)))
    submission = attack.prepare(TrainingView(attack.threat, Ground(few, own, task)), rng=Rng(0))
    found = []
    for records in (
        few.train.altered(submission.ids, submission.inputs, submission.targets),
        few.train.without(own.ids.tolist()),
    ):
        subject = Plain().fit(task, records, recipe, model, rng=Rng(10))
        case = Case(few, (ForgetRequest(own.ids, "half"),), subject, subject, submission=submission)
        measures = attack.measure(attack.run(case, rng=Rng(0))[1])
        found.append(next(m.value for m in measures if m.name == "gaussian.z"))
    carrying, without = found
    assert carrying < -2.5
    assert abs(without) < 2.5


# what is remembered


def test_a_model_goes_on_as_it_would_token_by_token() -> None:
    _task, split = posed()
    model, tokens = trained().model, split.train.take([3, 4]).batch().inputs[TOKENS].long()[:, :10]
    with torch.no_grad():
        fast = continued(model, tokens, 6)
        slow = tokens
        for _ in range(6):
            slow = torch.cat([slow, model.both(slow)[1][:, -1].argmax(1, keepdim=True)], 1)
    assert torch.equal(fast, slow[:, 10:])


def test_n_grams() -> None:
    assert _grams(np.array([1, 2, 3, 4]), 3) == [(1, 2, 3), (2, 3, 4)]
    assert _grams(np.array([1, 2]), 3) == []


# methods


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_each_method_unlearns_texts(method: Unlearner) -> None:
    _, split = posed()
    retain, forget = split.train.take(list(range(60))), split.train.take(list(range(60, 90)))
    before = copy.deepcopy(trained().model)
    after = method.unlearn(trained(), retain, forget, rng=Rng(0))
    assert not same_weights(after.model, before)
    assert same_weights(trained().model, before)
    assert after.cost.samples > 0


def test_an_audit_of_texts_from_data_to_report(tmp_path: Path) -> None:
    plan = options.plan(
        data="diagnoses",
        forget=["random=60"],
        unlearn=["retrain", "finetune"],
        attack=["instruction", "confidence_membership"],
        verify=["accuracy", "memorisation"],
        seeds=1,
        controls=1,
        threads=1,
        recipe={"epochs": 8, "batch_size": 32, "optimizer": "adamw", "lr": 0.005},
        settings={
            "gpt2": {"layers": 1, "heads": 2, "width": 16, "dropout": 0, "writing": 0.2},
            "memorisation": {"texts": 16, "places": 1},
        },
    )
    record = audit(plan, Store(tmp_path / "store"), tmp_path / "out")
    assert {cell.status for cell in record.cells} == {"ok"}
    lift = {
        cell.target: next(m.value for m in cell.measures if m.name == "instruction.lift")
        for cell in record.cells
        if cell.attack == "instruction" and cell.target != "unlearned"
    }
    assert lift["original"] > lift["retrained"] + 0.3
    assert (tmp_path / "out" / "report.html").exists()


def test_noise_on_embeddings_is_audited(tmp_path: Path) -> None:
    plan = options.plan(
        data="diagnoses",
        forget=["random=60"],
        unlearn=["retrain"],
        attack=["gaussian"],
        verify=["accuracy"],
        seeds=1,
        controls=1,
        threads=1,
        recipe={"epochs": 2, "batch_size": 32, "optimizer": "adamw", "lr": 0.005},
        settings={"gpt2": {"layers": 1, "heads": 2, "width": 16}, "gaussian": {"deviation": 10.0}},
    )
    record = audit(plan, Store(tmp_path / "store"), tmp_path / "out")
    assert {cell.status for cell in record.cells} == {"ok"}
    found = {cell.target: m.value for cell in record.cells for m in cell.measures if m.name == "gaussian.z"}
    assert abs(found["clean"]) < 4
    assert abs(found["retrained"]) < 4
