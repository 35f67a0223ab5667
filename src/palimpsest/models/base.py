"""What a model is: a factory whose fields are its hyper-parameters and whose `build` returns a `torch.nn.Module`."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from palimpsest.catalog import Checked, find, load, make, members, name_of, setting, source_hash
from palimpsest.errors import BadInput, told
from palimpsest.rng import Rng
from palimpsest.task import Classification, Task, as_classification, evaluating
from palimpsest.types import Batch, Split


@dataclass(frozen=True)
class Model(Checked, ABC):
    """Base of all model factories.

    solves: name of the task that its models are for, from which all of an audit's task follows. pretrained: its weights are given,
    and no stream draws them.
    """

    kind: ClassVar[str] = "models"
    revision: ClassVar[int] = 1
    about: ClassVar[str] = ""
    images_only: ClassVar[bool] = False
    solves: ClassVar[str] = Classification.name
    pretrained: ClassVar[bool] = False

    def task(self, split: Split) -> Task:
        """The task of these data, posed for this model. Raises BadInput where the data do not fit."""
        return Classification.of(split)

    @abstractmethod
    def network(self, task: Classification) -> nn.Module:
        """The module from normalised inputs to logits, initialised from torch's ambient generator."""

    def build(self, task: Task, rng: Rng) -> nn.Module:
        """A fresh model: (n, *task.shape) floats as stored → (n, task.classes) logits. Same stream, same weights.

        Raises BadInput where the model takes images and the records are none, and for a task that it does not solve.
        """
        task = as_classification(task, name_of(self))
        if self.images_only and len(task.shape) != 3:
            got = f"records of shape {task.shape}"
            raise BadInput(name_of(self), got=got, expected="images (channels, height, width)", do="use mlp or linear")
        with rng.child("initial-weights").ambient():
            return Normalised(self.network(task), task.mean, task.std, len(task.shape))

    def untrained(self, task: Task, rng: Rng) -> nn.Module:
        """A model that has learnt nothing: what `build` gives, unless that starts from given weights."""
        return self.build(task, rng)


class Normalised(nn.Module):
    """Normalisation inside the model: attacks work on stored values, weights travel with their scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], dimensions: int) -> None:
        super().__init__()
        shape = (-1, *([1] * (dimensions - 1)))
        self.register_buffer("mean", torch.tensor(mean).view(shape))
        self.register_buffer("std", torch.tensor(std).view(shape))
        self.network = network

    def encode(self, inputs: Tensor) -> Tensor:
        """The network's features, where it has `encode`."""
        features: Tensor = self.network.encode((inputs - self.mean) / self.std)  # type: ignore[operator]
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network((inputs - self.mean) / self.std)
        return logits


class Restored(nn.Module):
    """Normalisation inside a model of images and masks, undone on what it gives back: stored values in, stored values out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.network = network

    def encode(self, image: Tensor, mask: Tensor) -> Tensor:
        """The network's latent tokens, shape (n, visible, d)."""
        latent: Tensor = self.network.encode((image - self.mean) / self.std, mask)  # type: ignore[operator]
        return latent

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        drawn: Tensor = self.network((image - self.mean) / self.std, mask)
        return drawn * self.std + self.mean


def blocks(model: nn.Module) -> list[nn.Module]:
    """The model's ordered blocks, first to last: its own `blocks()`, else its children that hold parameters."""
    inner = model.network if isinstance(model, (Normalised, Restored)) else model
    declared = getattr(inner, "blocks", None)
    if callable(declared):
        return list(declared())
    return [child for child in inner.children() if any(True for _ in child.parameters())]


@dataclass(frozen=True)
class UserModel(Model):
    """Any `torch.nn.Module` of the user's: a class, or a function that returns one.

    The callable may take `shape` (one record's input shape) and `classes`; it may also take neither. The module gets images as
    floats in [0, 1], shape (n, channels, height, width), or features in the units of the data, and returns logits of
    shape (n, classes). Normalising is its own business.
    """

    kind: ClassVar[str] = "user models"  # not a member of the catalog

    target: str = setting("", "my_package.models:make", source="the user")

    def network(self, task: Classification) -> nn.Module:
        factory: Callable[..., Any] = load(self.target)
        if not callable(factory) or isinstance(factory, nn.Module):
            raise BadInput(
                self.target, got=type(factory).__name__, expected="a function or class that returns a torch.nn.Module"
            )
        given = self._arguments(factory, {"shape": task.shape, "classes": task.classes})
        try:
            module = factory(**given)
        except Exception as error:  # whatever a stranger's code raises is its failure, and is told
            raise BadInput(self.target, got=told(error), expected="a torch.nn.Module", do="mend it") from error
        if not isinstance(module, nn.Module):
            raise BadInput(self.target, got=type(module).__name__, expected="a torch.nn.Module", do="return the module")
        if not any(True for _ in module.parameters()):
            raise BadInput(self.target, got="a module without parameters", expected="a model that can be trained")
        return copy.deepcopy(module)  # a factory that keeps its module and returns it twice must not tie two models

    def _arguments(self, factory: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
        """What it takes of `offered`. Raises BadInput where it cannot do without something else."""
        try:
            takes = inspect.signature(factory).parameters
        except ValueError:  # some compiled callables do not tell
            return {}
        fixed = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        needed = [name for name, one in takes.items() if one.default is Parameter.empty and one.kind not in fixed]
        strange = [name for name in needed if name not in offered or takes[name].kind is Parameter.POSITIONAL_ONLY]
        if strange:
            got, do = f"a required parameter {strange[0]!r}", "give it a default, or wrap it in a function"
            raise BadInput(self.target, got=got, expected="no other than `shape` and `classes`, by name", do=do)
        return {name: value for name, value in offered.items() if name in takes}

    def build(self, task: Task, rng: Rng) -> nn.Module:
        task = as_classification(task, self.target)
        with rng.child("initial-weights").ambient():
            module = self.network(task)
        probe = Batch({task.attacked_input: torch.zeros(2, *task.shape)}, torch.zeros(2, dtype=torch.long))
        try:
            with evaluating(module), torch.no_grad():
                logits = task.outputs(module, probe)
        except Exception as error:  # whatever a stranger's code raises is its failure, and is told
            got = f"{told(error)}, on two records of shape {task.shape}"
            raise BadInput(self.target, got=got, expected=f"logits of shape (2, {task.classes})") from error
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            got = str(logits.dtype) if isinstance(logits, Tensor) else type(logits).__name__
            raise BadInput(self.target, got=got, expected="logits, a tensor of floats", do="return the logits alone")
        if tuple(logits.shape) != (2, task.classes):
            got = f"logits of shape {tuple(logits.shape)} for two records"
            raise BadInput(
                self.target, got=got, expected=f"(2, {task.classes})", do="fit the last layer to the classes"
            )
        return module

    def identity_extra(self) -> dict[str, Any]:
        """The user's own name for it, and the hash of the source, so that an edited model is another model."""
        return {"name": self.target, "source": source_hash(load(self.target))}


def task_of(name: str) -> str:
    """The task that the model of this name solves; a module of the user's own that is no factory classifies."""
    value = load(name) if ":" in name else members("models").get(name)
    return str(getattr(value, "solves", Classification.name))


def factory(name: str, settings: dict[str, Any] | None = None) -> Model:
    """The factory behind a catalog name, a `my_module:Factory`, or any `my_module:make` that returns a module."""
    if ":" in name:
        value = load(name)
        if not (inspect.isclass(value) and getattr(value, "kind", None) == "models"):
            if settings:
                raise BadInput(name, got=f"settings {sorted(settings)}", expected="none for a module of one's own")
            return UserModel(name)
    made: Model = make("models", name, settings) if ":" not in name else _own(name, settings)
    return made


def _own(name: str, settings: dict[str, Any] | None) -> Model:
    from palimpsest.catalog import configure

    made: Model = configure(find("models", name), settings or {}, name)
    return made
