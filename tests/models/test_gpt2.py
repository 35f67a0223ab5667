"""A small GPT-2: what it answers, its loss, adapters and checkpoints."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from palimpsest import options
from palimpsest.catalog import identity
from palimpsest.data._tokens import tokenizer_of
from palimpsest.data.table import Table
from palimpsest.errors import BadInput
from palimpsest.language import NOISE, TOKENS
from palimpsest.learn.plain import Plain
from palimpsest.models.gpt2 import Gpt2
from palimpsest.pipeline import audit
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import predict
from palimpsest.types import Batch, Examples
from tests.texts import METHODS, RECIPE, SMALL, posed, texts, trained


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


@pytest.mark.parametrize(("absent", "model"), [("transformers", Gpt2()), ("peft", Gpt2(path="somewhere", lora=2))])
def test_without_a_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, absent: str, model: Gpt2) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(BadInput, match=rf"package {absent}.*pip install 'palimpsest-ml\[text\]'"):
        identity(model)
