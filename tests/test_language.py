"""Text as tokens, a small GPT-2, what is written into texts, and what is remembered of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm

from palimpsest import options
from palimpsest.attack.poisoning.gaussian import Gaussian
from palimpsest.attack.poisoning.instruction import inserted
from palimpsest.case import Case
from palimpsest.data._tokens import tokenizer_of
from palimpsest.data.diagnoses import Diagnoses
from palimpsest.data.table import Table
from palimpsest.errors import BadInput
from palimpsest.language import NOISE, TOKENS, Language, embedding_noise
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.gpt2 import Gpt2
from palimpsest.pipeline import audit
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import predict
from palimpsest.threat import Ground, TrainingView, View, same_weights
from palimpsest.types import Batch, Examples, ForgetRequest, Split
from palimpsest.unlearn.base import Unlearner
from palimpsest.unlearn.catastrophic_forgetting_k import CatastrophicForgettingK
from palimpsest.unlearn.exact_unlearning_k import ExactUnlearningK
from palimpsest.unlearn.finetune import Finetune
from palimpsest.unlearn.gradient_ascent import GradientAscent
from palimpsest.unlearn.l1_sparse import L1Sparse
from palimpsest.unlearn.negative_gradient import NegativeGradient
from palimpsest.unlearn.noisy_gradient_descent import NoisyGradientDescent
from palimpsest.unlearn.random_label import RandomLabel
from palimpsest.unlearn.salun import SalUn
from palimpsest.unlearn.scrub import Scrub
from palimpsest.unlearn.single_gradient import SingleGradient
from palimpsest.unlearn.ssd import SelectiveSynapticDampening
from palimpsest.verify.memorisation import _grams, continued

SMALL = Gpt2(layers=1, heads=2, width=16, dropout=0.0, writing=0.5)
RECIPE = Recipe(epochs=12, batch_size=32, optimizer="adamw", lr=5e-3)


METHODS = (
    Finetune(epochs=1, lr=0.05),
    GradientAscent(epochs=1, lr=0.05),
    NegativeGradient(epochs=1),
    NoisyGradientDescent(epochs=1, lr=0.01),
    Scrub(epochs=1, max_epochs=1),
    ExactUnlearningK(k=1, epochs=1),
    CatastrophicForgettingK(k=1, epochs=1),
    SalUn(epochs=1),
    RandomLabel(epochs=1),
    L1Sparse(epochs=1),
    SingleGradient(),
    SelectiveSynapticDampening(samples=20, alpha=0.5),
)
"""The poisoning paper's, and others that ask nothing but the task's loss."""


@cache
def posed(model: Gpt2 = SMALL) -> tuple[Language, Split]:
    split = Diagnoses().load()
    task = model.task(split)
    return task, task.prepare(split)


@cache
def trained(model: Gpt2 = SMALL) -> Trained:
    task, split = posed(model)
    return Plain().fit(task, split.train, RECIPE, model, rng=Rng(0))


# tokens


def texts(tmp_path: Path, rows: int = 60) -> Path:
    lines = ["text,label"]
    for row in range(rows):
        kind = "good" if row % 2 else "bad"
        lines.append(f'"this film number {row} was {kind} {"very " * (row % 7)}{kind}",{kind}')
    path = tmp_path / "films.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_text_can_be_read_back_and_ends_with_the_prompt(tmp_path: Path) -> None:
    split = Table(str(texts(tmp_path)), tokens=60, vocabulary=300, prompt=" Verdict:").load()
    assert (split.kind, split.shape, split.classes) == ("tokens", (60,), ("bad", "good"))
    tokenizer, tokens = tokenizer_of(split.train.context), split.train.raw(TOKENS)
    assert tokens.dtype == torch.int32
    for name, row in zip(split.train.ids.tolist(), tokens, strict=True):
        said = tokenizer.decode(row[row >= 0].tolist())
        assert said.startswith("this film number ")
        assert said.endswith(" Verdict:"), name
    assert split.train.context["answers"] == [tokenizer.token_to_id(f"<|{name}|>") for name in ("bad", "good")]


def test_of_a_long_text_the_wanted_end_is_kept(tmp_path: Path) -> None:
    start, end = (
        Table(str(texts(tmp_path)), tokens=12, vocabulary=300, prompt="?", keep=keep).load()
        for keep in ("start", "end")
    )
    tokenizer = tokenizer_of(start.train.context)
    one, other = (tokenizer.decode(split.train.raw(TOKENS)[0].tolist()) for split in (start, end))
    assert one.startswith("this")
    assert not other.startswith("this")
    assert one.endswith("?")
    assert other.endswith("?")


def test_the_learnt_tokenizer_knows_validation_texts_only(tmp_path: Path) -> None:
    """So that a forgotten record leaves nothing in it."""
    path = texts(tmp_path)
    before = Table(str(path), tokens=40, vocabulary=320).load()
    rows = path.read_text().splitlines()
    place = int(before.train.ids[0].rsplit("/", 1)[1])
    rows[place + 1] = '"zyzzyva zyzzyva zyzzyva zyzzyva zyzzyva zyzzyva",bad'
    path.write_text("\n".join(rows))
    after = Table(str(path), tokens=40, vocabulary=320).load()
    assert before.train.context == after.train.context
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tokens": 2, "prompt": " a long question here"}, "table.tokens"),
        ({"tokens": 40, "answers": "yes"}, "table.answers"),
        ({"tokens": 40, "tokenizer": "./nowhere"}, "./nowhere"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, fields: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Table(str(texts(tmp_path)), **fields).load()


def test_two_classes_with_one_answer_are_refused(tmp_path: Path) -> None:
    saved = tmp_path / "tokenizer.json"
    saved.write_text(str(tokenizer_of(posed()[1].train.context).to_str()))
    with pytest.raises(BadInput, match="another answer"):
        Table(str(texts(tmp_path)), tokens=40, tokenizer=str(tmp_path), answers="large good,large bad").load()


def test_what_looks_like_an_answer_in_a_text_is_text(tmp_path: Path) -> None:
    path = texts(tmp_path)
    path.write_text(path.read_text().replace("was good", "was <|good|>"))
    split = Table(str(path), tokens=60, vocabulary=300).load()
    assert not set(split.train.raw(TOKENS).flatten().tolist()) & set(split.train.context["answers"])


def test_tokens_in_a_memory_map_are_the_same(tmp_path: Path) -> None:
    path = str(texts(tmp_path))
    kept = Table(path, tokens=40, vocabulary=320).load()
    for _ in range(2):
        mapped = Table(path, tokens=40, vocabulary=320, memory_limit=0, cache=str(tmp_path / "cache")).load()
        assert mapped.fingerprint == kept.fingerprint
        assert mapped.train.context == kept.train.context


# the model


def test_it_learns_to_answer() -> None:
    task, split = posed()
    answer = predict(task, trained().model, split.test).argmax(1)
    assert float((answer == split.test.targets).float().mean()) > 0.8


def test_padding_and_what_stands_beside_a_record_change_nothing() -> None:
    task, split = posed()
    model = trained().model
    whole = split.test.take([0, 1, 2]).batch()
    longer = {TOKENS: F.pad(whole.inputs[TOKENS][:, :60], (0, 20), value=-1), NOISE: whole.inputs[NOISE]}
    shorter = {TOKENS: whole.inputs[TOKENS][:, :60], NOISE: whole.inputs[NOISE]}
    one, other = (task.outputs(model, Batch(inputs, whole.targets)) for inputs in (longer, shorter))
    torch.testing.assert_close(one, other)
    alone = torch.cat([task.outputs(model, split.test.take([row]).batch()) for row in range(3)])
    torch.testing.assert_close(task.outputs(model, whole), alone)


def test_the_loss_is_the_answers_and_the_texts() -> None:
    task, split = posed()
    model, batch = trained().model, split.train.take(list(range(5))).batch()
    tokens = batch.inputs[TOKENS].long()
    with torch.no_grad():
        logits, words = model.both(tokens)
        written = []
        for row, said in zip(tokens, words, strict=True):
            there = row[row >= 0]
            written.append(F.cross_entropy(said[: len(there) - 1], there[1:]))
        by_hand = F.cross_entropy(logits, batch.targets, reduction="none") + 0.5 * torch.stack(written)
        torch.testing.assert_close(task.loss(model, batch, reduction="none"), by_hand)
        torch.testing.assert_close(task.loss(model, batch), by_hand.mean())
        torch.testing.assert_close(task.surprise(model, batch), torch.stack(written))
        there = task.perceived(model, batch)
        bare = task.loss_at(model, batch, there)
    torch.testing.assert_close(bare, F.cross_entropy(logits, batch.targets))


def test_with_adapters_they_alone_are_trained_and_unlearned(tmp_path: Path) -> None:
    trained().model.inner.save_pretrained(tmp_path)
    given = {name.removeprefix("inner."): value for name, value in trained().model.state_dict().items()}
    model = Gpt2(path=str(tmp_path), dropout=0.0, lora=2)
    task, split = posed(model)
    free = {name for name, p in model.build(task, Rng(0)).named_parameters() if p.requires_grad}
    assert free
    assert all("lora_" in name for name in free)
    before = Plain().fit(task, split.train, replace(RECIPE, epochs=1), model, rng=Rng(0))
    retain, forget = split.train.take(list(range(100))), split.train.take(list(range(100, 130)))
    for method in METHODS:
        after = method.unlearn(before, retain, forget, rng=Rng(1))
        moved = {n for n, v in after.model.state_dict().items() if not torch.equal(v, before.model.state_dict()[n])}
        assert moved, method
        assert all("lora_" in name for name in moved), method
    for name, value in before.model.inner.state_dict().items():
        assert "lora_" in name or torch.equal(value, given[name.replace(".base_layer", "")]), name


def test_of_a_checkpoint_training_goes_on_from_its_weights(tmp_path: Path) -> None:
    task, split = posed()
    trained().model.inner.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").write_text(tokenizer_of(split.train.context).to_str())
    given = Gpt2(path=str(tmp_path / "saved"), dropout=0.0, writing=0.5)
    again = given.task(split)
    assert {**again.identity(), "std": 0} == {**task.identity(), "std": 0}
    assert again.std == pytest.approx([float(trained().model.inner.transformer.wte.weight.detach().std())])
    one, other = (predict(task, model, split.test) for model in (trained().model, given.build(again, Rng(5))))
    torch.testing.assert_close(one, other)
    with pytest.raises(BadInput, match="another tokenizer"):
        given.task(Table(str(texts(tmp_path)), tokens=40, vocabulary=320).load())
    fresh = given.untrained(again, Rng(0))
    assert not torch.allclose(predict(task, fresh, split.test), one)
    moved = tmp_path / "saved.elsewhere"
    (tmp_path / "saved").rename(moved)
    assert Gpt2(path=str(moved)).identity_extra() == Gpt2(path=str(moved)).identity_extra()
    elsewhere, long = Gpt2(path=str(moved)), replace(split, train=_longer(split.train))
    with pytest.raises(BadInput, match=r"hub\.tokens lower"):
        elsewhere.task(long)


def _longer(part: Examples) -> Examples:
    return replace(part, inputs={TOKENS: F.pad(part.inputs[TOKENS], (0, 40), value=-1), NOISE: part.inputs[NOISE]})


def test_what_gpt2_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="multiple of the heads"):
        Gpt2(width=10, heads=4).task(posed()[1])
    with pytest.raises(BadInput, match=r"hub\.tokens"):
        SMALL.task(options.dataset(options.choices({"data": "breast_cancer"})).load())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadInput, match="safetensors"):
        Gpt2(path=str(tmp_path)).task(posed()[1])
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="checkpoint of bert"):
        Gpt2(path=str(tmp_path)).task(posed()[1])


def test_a_classifier_of_features_is_refused_tokens(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="text as tokens"):
        audit(
            options.plan(data="diagnoses", model="mlp", forget=["random=5"], seeds=1),
            Store(tmp_path / "store"),
            tmp_path / "out",
        )


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
