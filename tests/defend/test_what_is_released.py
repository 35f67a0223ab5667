"""Defences against inversion: what each does to weights or answers, by hand, and what stands before whom."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.leakage.label_inference import LabelInference
from palimpsest.attack.residual.uma import Uma
from palimpsest.contract.bench import Bench
from palimpsest.data.digits import Digits
from palimpsest.defend.base import Answering, Guarded, OutputRelease
from palimpsest.defend.finetuning import Finetuning, Samples
from palimpsest.defend.labels_only import LabelsOnly
from palimpsest.defend.parameter_noise import ParameterNoise
from palimpsest.defend.pruning import Pruning
from palimpsest.defend.rounding import Rounding
from palimpsest.defend.top_k import TopK
from palimpsest.errors import BadInput
from palimpsest.learn.finetuned import Finetuned
from palimpsest.learn.loop import Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.unlearn.certified_removal import CertifiedRemoval
from palimpsest.unlearn.retrain import Retrain
from palimpsest.unlearn.single_gradient import SingleGradient
from palimpsest.verify.accuracy import Accuracy
from tests.audit.small import run


@pytest.fixture(scope="module")
def bench() -> Bench:
    torch.set_num_threads(1)
    return Bench(model=Linear())


def length(one: nn.Module, other: nn.Module) -> float:
    parts = [(a - b).detach().square().sum() for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    return float(torch.stack(parts).sum().sqrt())


def test_what_unlearning_moved_is_clipped_and_noise_is_added_to_every_weight(bench: Bench) -> None:
    retain, forget = bench.parted("class=0")
    bare = SingleGradient(lr=1.0, epochs=10, batch_size=1)
    far = bare.unlearn(bench.original, retain, forget, rng=Rng(0)).model
    assert length(far, bench.original.model) > 1
    clipped = Guarded(bare, ParameterNoise(clip=0.5, sigma=0.0)).unlearn(bench.original, retain, forget, rng=Rng(0))
    assert length(clipped.model, bench.original.model) == pytest.approx(0.5, rel=1e-4)
    for near, long, old in zip(
        clipped.model.parameters(), far.parameters(), bench.original.model.parameters(), strict=True
    ):
        torch.testing.assert_close(
            near - old, (long - old) * (0.5 / length(far, bench.original.model)), rtol=1e-3, atol=1e-6
        )
    noisy = Guarded(bare, ParameterNoise(clip=0.5, sigma=0.01)).unlearn(bench.original, retain, forget, rng=Rng(0))
    noise = torch.cat(
        [(a - b).detach().flatten() for a, b in zip(noisy.model.parameters(), clipped.model.parameters(), strict=True)]
    )
    assert float(noise.std()) == pytest.approx(0.01, rel=0.15)
    assert bool((noise != 0).all())


def test_an_exact_method_under_noise_is_exact_no_more() -> None:
    assert Guarded(Retrain(), ParameterNoise()).guarantee == "none"
    certified = CertifiedRemoval()
    kept = {"residual": torch.ones(3), "sigma": torch.ones(())}
    assert certified.budget(kept) > 0
    assert Guarded(certified, ParameterNoise()).budget(kept) is None


def served(release: Pruning | Rounding | Finetuning, bench: Bench, model: nn.Module) -> nn.Module:
    part = release.part(bench.task)
    release.prepare(part, bench.task, bench.parted("class=0")[0], rng=Rng(0), meter=Meter())
    return release.release(part, model)


def test_the_smallest_weights_of_each_layer_or_of_all_go(bench: Bench) -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1.0, 9.0).view(2, 4))
        model[1].weight.copy_(torch.tensor([[10.0, -20.0], [30.0, -40.0]]))
    by_layer = served(Pruning(share=0.5), bench, model)
    assert by_layer[0].weight.flatten().tolist() == [0, 0, 0, 0, 5, 6, 7, 8]  # type: ignore[index, union-attr, operator]
    assert by_layer[1].weight.flatten().tolist() == [0, 0, 30, -40]  # type: ignore[index, union-attr, operator]
    by_model = served(Pruning(share=0.5, scope="model"), bench, model)
    assert by_model[0].weight.flatten().tolist() == [0] * 6 + [7, 8]  # type: ignore[index, union-attr, operator]
    assert torch.equal(by_model[0].bias, model[0].bias)  # type: ignore[index, union-attr, arg-type]
    assert model[0].weight.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_rounded_weights_are_those_of_a_short_file(bench: Bench) -> None:
    rounded = served(Rounding(), bench, bench.original.model)
    for short, long in zip(rounded.parameters(), bench.original.model.parameters(), strict=True):
        assert torch.equal(short, long.half().float())


def test_fine_tuning_stores_places_of_records_and_no_records(bench: Bench) -> None:
    how, retain = Finetuning(records=5, lr=0.1, steps=1), bench.parted("class=0")[0]
    made, stored = how.part(bench.task), how.part(bench.task)
    how.prepare(made, bench.task, retain, rng=Rng(0), meter=Meter())
    assert {name: value.shape for name, value in made.state_dict().items()} == {"places": (5,)}
    stored.load_state_dict(made.state_dict())
    with pytest.raises(RuntimeError, match="without its records"):
        how.release(stored, bench.original.model)
    how.restore(stored, retain)
    one, other = (how.release(part, bench.original.model).state_dict() for part in (made, stored))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_fine_tuning_takes_plain_steps_on_the_samples_alone(bench: Bench) -> None:
    how = Finetuning(records=20, lr=0.1, steps=2)
    part = how.part(bench.task)
    retain = bench.parted("class=0")[0]
    how.prepare(part, bench.task, retain, rng=Rng(0), meter=Meter())
    assert isinstance(part, Samples)
    batch = part.batch(torch.device("cpu"))
    assert len(batch) == 20
    assert 0 not in batch.targets.tolist()  # the forgotten class
    expected = copy.deepcopy(bench.original.model).double()
    inputs = {name: value.double() for name, value in batch.inputs.items()}
    for _ in range(2):
        loss = nn.functional.cross_entropy(expected(*inputs.values()), batch.targets)
        for parameter, slope in zip(
            expected.parameters(), torch.autograd.grad(loss, list(expected.parameters())), strict=True
        ):
            parameter.data -= 0.1 * slope
    for found, wanted in zip(how.release(part, bench.original.model).parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-6)


def test_answers_say_the_class_alone_or_the_highest_few(bench: Bench) -> None:
    posterior = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
    assert LabelsOnly().answers(posterior).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    shown = TopK(k=2).answers(posterior)
    torch.testing.assert_close(shown, torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.15, 0.15, 0.3, 0.4]]))
    assert TopK(k=4).answers(posterior).tolist() == posterior.tolist()
    with pytest.raises(BadInput, match=r"top_k\.k: got 11, expected at most 10"):
        TopK(k=11).part(bench.task)

    class Fixed(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return posterior.log()

    answered = torch.softmax(Answering(Fixed(), TopK(k=2))(torch.zeros(2, 1)), 1)
    torch.testing.assert_close(answered, shown)


def test_a_release_of_answers_stands_before_both_models_and_not_before_weights(tmp_path: Path) -> None:
    """Label inference sees labels before and after, so that no confidence falls; UMA, which holds the weights, is not run on it."""
    labels = LabelInference(strategy="random_squares", probes=2, changes=60, tries=1, threshold=0.6)
    record = run(
        tmp_path,
        reported=False,
        data=Digits(limit=400, public=0.6),
        model=Linear(),
        learner=Finetuned(pretraining_epochs=8, pretraining_lr=0.05),
        recipe=Recipe(epochs=1, lr=0.01, momentum=0.0, schedule="constant"),
        forget=("class=0", "class=1"),
        separate=True,
        unlearners=(SingleGradient(),),
        attacks=(labels, Uma(epsilon=(8 / 255,), steps=2, layout="contiguous"), ConfidenceMembership()),
        verifiers=(Accuracy(),),
        defences=(LabelsOnly(),),
        controls=1,
    )
    behind = "single_gradient+labels_only"
    assert isinstance(LabelsOnly(), OutputRelease)
    run_on = {(cell.attack, cell.unlearner) for cell in record.cells if cell.attack and cell.status == "ok"}
    assert ("label_inference", behind) in run_on
    assert ("confidence_membership", behind) in run_on
    assert ("uma", behind) not in run_on
    margins = {
        cell.unlearner: next(m.value for m in cell.measures if m.name == "label_inference.margin")
        for cell in record.cells
        if cell.attack == "label_inference" and cell.target == "unlearned"
    }
    assert abs(margins["single_gradient"]) > 1e-5
    assert margins[behind] == pytest.approx(0, abs=1e-6)
    assert [(row.unlearner, row.attack) for row in record.leaks] == [
        ("single_gradient", "label_inference"),
        (behind, "label_inference"),
    ]
    accuracy = {
        (cell.target, cell.unlearner): next(m.value for m in cell.measures if m.name == "test_accuracy")
        for cell in record.cells
        if cell.verifier == "accuracy"
    }
    assert accuracy["unlearned", behind] == accuracy["unlearned", "single_gradient"]
