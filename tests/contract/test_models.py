"""What every model factory of the catalog must pass, and any module of the user's."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from palimpsest import contract
from palimpsest.catalog import identity, members
from palimpsest.errors import BadInput, UnknownName
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model, Normalised, UserModel, blocks, factory
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Batch, Split
from tests.models.checkpoints import tiny

UNIT = (torch.zeros(()), torch.ones(()))
TASKS = {
    "digits": Classification(10, (1, 8, 8), (0.5,), (0.25,), UNIT, "image"),
    "colour": Classification(7, (3, 32, 32), (0.5,) * 3, (0.25,) * 3, UNIT, "image"),
    "table": Classification(2, (30,), (1.0,) * 30, (2.0,) * 30, UNIT, "features"),
}
NAMES = sorted(name for name, cls in members("models").items() if cls.solves == Classification.name)
OTHERS = sorted(set(members("models")) - set(NAMES))
"""Models of other tasks, which are tested beside their tasks (`tests/test_reconstruction.py`)."""


def small(name: str) -> Model:
    """The factory as small as its settings allow, for the tests' sake."""
    cls = members("models")[name]
    fields = {field.name for field in dataclasses.fields(cls)}
    return cls(**({"width": 4} if "width" in fields else {}))  # type: ignore[no-any-return]


def build(name: str, task: str, seed: int = 0) -> nn.Module:
    return small(name).build(TASKS[task], Rng(seed))


def inputs(task: str, n: int = 6) -> Tensor:
    return torch.rand(n, *TASKS[task].shape, generator=Rng(1).torch())


def fits(name: str, task: str) -> bool:
    return not (task == "table" and small(name).images_only)


PAIRS = [(name, task) for name in NAMES for task in TASKS if fits(name, task)]


def test_each_kind_of_data_has_a_model_and_pictures_have_all() -> None:
    assert {name for name, task in PAIRS if task == "table"} >= {"linear", "mlp"}
    assert {name for name, task in PAIRS if task == "digits"} == set(NAMES)


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_logits_for_each_record_and_gradients_for_each_parameter(name: str, task: str) -> None:
    model = build(name, task)
    logits = model(inputs(task))
    assert logits.shape == (6, TASKS[task].classes)
    targets = torch.arange(6) % TASKS[task].classes
    nn.functional.cross_entropy(logits, targets).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} has no part in the answer"
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_the_same_stream_gives_the_same_weights(name: str) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (build(name, "digits", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert all(value.data_ptr() != again[key].data_ptr() for key, value in first.items() if value.numel())


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_a_record_is_judged_alone(name: str, task: str) -> None:
    """In evaluation mode the answer to a record does not depend on its batch."""
    model = build(name, task)
    model(inputs(task))  # batch statistics move once
    model.eval()
    with torch.no_grad():
        together = model(inputs(task))
        alone = torch.cat([model(inputs(task)[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_in_order_and_hold_every_parameter_once(name: str) -> None:
    model = build(name, "digits")
    parts = blocks(model)
    held = [id(parameter) for part in parts for parameter in part.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters()}
    seen: list[int] = []
    for index, part in enumerate(parts):
        part.register_forward_hook(lambda *_, index=index: seen.append(index))
    model.eval()(inputs("digits"))
    assert seen == list(range(len(parts)))
    assert isinstance([module for module in parts[-1].modules() if list(module.parameters(False))][-1], nn.Linear)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_makes_the_same_model(name: str) -> None:
    one, other = build(name, "digits"), build(name, "digits", seed=1)
    one(inputs("digits"))
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one.eval()(inputs("digits")), other.eval()(inputs("digits")))
    assert {"mean", "std"} <= one.state_dict().keys()


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_normalisation_is_inside_the_model(name: str, task: str) -> None:
    model = build(name, task).eval()
    assert isinstance(model, Normalised)
    given = inputs(task)
    mean, std = (
        torch.tensor(value).view(-1, *[1] * (given.dim() - 2)) for value in (TASKS[task].mean, TASKS[task].std)
    )
    with torch.no_grad():
        torch.testing.assert_close(model(given), model.network((given - mean) / std))


@pytest.mark.parametrize("name", [name for name in NAMES if not fits(name, "table")])
def test_a_model_of_images_refuses_a_table(name: str) -> None:
    with pytest.raises(BadInput, match=rf"{name}: got records of shape \(30,\), expected images .* use mlp or linear"):
        build(name, "table")


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "width" in {f.name for f in dataclasses.fields(small(name))}]
)
def test_width_makes_a_larger_model_and_another_identity(name: str) -> None:
    narrow, wide = small(name), replace(small(name), width=8)  # type: ignore[call-arg]
    sizes = [sum(p.numel() for p in model.build(TASKS["digits"], Rng(0)).parameters()) for model in (narrow, wide)]
    assert sizes[1] > sizes[0]
    assert identity(narrow) != identity(wide)


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_173_962), ("resnet50", 23_520_842), ("mlp", 4 * 65 * 64 + 65 * 10)]
)
def test_sizes_are_the_published_ones(name: str, parameters: int) -> None:
    """The CIFAR ResNets as commonly counted, on the meta device; the multilayer perceptron by hand."""
    task = replace(TASKS["colour"], classes=10) if name.startswith("resnet") else TASKS["digits"]
    with torch.device("meta"):
        network = members("models")[name]().network(task)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_other_tasks_pass_the_checks_that_a_users_model_is_held_to(name: str, tmp_path: Path) -> None:
    """A pre-trained one with a checkpoint of the right size; it is not asked for other weights from another stream."""
    cls = members("models")[name]
    made = cls(path=str(tiny(tmp_path))) if cls.pretrained else cls()
    outcomes = list(contract.run("models", made))
    assert len(outcomes) == len(contract.checks("models")) - cls.pretrained
    assert not [outcome for outcome in outcomes if outcome.failure]


# a user's module, which the package has never seen

SOURCE = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.first = nn.Linear(features, 5)
        self.gate = nn.Parameter(torch.randn(5))
        self.last = nn.Linear(5, classes)
    def forward(self, x):
        return self.last(torch.tanh(self.first(x.flatten(1))) * self.gate)

def make(shape, classes):
    return Odd(torch.Size(shape).numel(), classes)

def fixed():
    return Odd(64, 10)

def narrow():
    return Odd(64, 3)

def other_inputs():
    return Odd(65, 10)

def not_a_module():
    return "a model"

def dropping():
    return nn.Sequential(nn.Dropout(0.9), Odd(64, 10)).train()

shared = Odd(64, 10)

def always_the_same():
    return shared
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A module that nobody has imported yet; gives the target of one of its attributes."""
    name = "own_" + "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda attribute: f"{name}:{attribute}"


@pytest.mark.parametrize("attribute", ["make", "fixed", "dropping"])
def test_a_users_module_is_built_seeded_and_trained(
    own: Any, attribute: str, digits: Split, digits_task: Classification
) -> None:
    made = factory(own(attribute))
    assert isinstance(made, UserModel)
    first, again, other = (made.build(digits_task, Rng(seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    trained = Plain().fit(digits_task, digits.train.take(list(range(64))), Recipe(epochs=1), made, rng=Rng(0))
    batch = Batch({"image": inputs("digits")}, torch.zeros(6, dtype=torch.long))
    assert digits_task.outputs(trained.model, batch).shape == (6, 10)
    assert any(not torch.equal(value, first[key]) for key, value in trained.model.state_dict().items())


def test_a_users_module_keeps_the_mode_that_it_came_in(own: Any, digits_task: Classification) -> None:
    assert factory(own("dropping")).build(digits_task, Rng(0)).training


def test_blocks_of_a_users_module_are_its_children(own: Any, digits_task: Classification) -> None:
    model = factory(own("make")).build(digits_task, Rng(0))
    assert [type(part) for part in blocks(model)] == [nn.Linear, nn.Linear]


@pytest.mark.parametrize(
    ("attribute", "match"),
    [
        ("narrow", r"got logits of shape \(2, 3\) for two records, expected \(2, 10\); fit the last layer"),
        ("other_inputs", r"got RuntimeError: mat1 .*, on two records of shape \(1, 8, 8\)"),
        ("not_a_module", r"got str, expected a torch\.nn\.Module"),
        ("SOURCE", "did you mean"),
        ("shared", r"got Odd, expected a function or class that returns"),
    ],
)
def test_a_users_module_that_does_not_fit_is_refused(
    own: Any, attribute: str, match: str, digits_task: Classification
) -> None:
    expected = UnknownName if attribute == "SOURCE" else BadInput
    with pytest.raises(expected, match=match):
        factory(own("Make" if attribute == "SOURCE" else attribute)).build(digits_task, Rng(0))


def test_a_factory_that_returns_one_module_twice_does_not_tie_two_models(own: Any, digits_task: Classification) -> None:
    made = factory(own("always_the_same"))
    one, other = made.build(digits_task, Rng(0)), made.build(digits_task, Rng(1))
    with torch.no_grad():
        next(one.parameters()).add_(1)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_a_users_model_is_known_by_its_source(own: Any, tmp_path: Path) -> None:
    first = identity(factory(own("make")))
    assert first["target"] == own("make")
    assert len(first["source"]) == 64
    assert first["source"] == identity(factory(own("fixed")))["source"]


def test_settings_for_a_users_function_are_refused_and_a_users_factory_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Any
) -> None:
    with pytest.raises(BadInput, match=r"got settings \['width'\], expected none"):
        factory(own("make"), {"width": 3})
    (tmp_path / "own_factory.py").write_text("from palimpsest.models.mlp import Mlp\nclass Wide(Mlp):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    wide = factory("own_factory:Wide", {"width": "9"})
    assert wide.width == 9  # type: ignore[attr-defined]
    assert factory("mlp", {"width": 5}) == members("models")["mlp"](width=5)
