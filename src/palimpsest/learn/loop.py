"""The one training loop, and the pieces that unlearners build theirs from."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.augment import augment
from palimpsest.learn.memory import PeakMemory
from palimpsest.learn.recipe import Recipe, optimizer, rate
from palimpsest.progress import track
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.task import Task
from palimpsest.types import Batch, Cost, Examples, Ids


@dataclass
class Meter:
    """Counts what a method spends. Every backward pass goes through `step` or `count`. device: whose memory is watched."""

    samples: int = 0
    gradient_evaluations: int = 0
    started: float = field(default_factory=time.perf_counter)
    before: float = 0.0  # seconds spent before a resumed run
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        self.memory = PeakMemory(self.device)

    def count(self, samples: int, evaluations: int = 1) -> None:
        self.samples += samples
        self.gradient_evaluations += evaluations

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, samples: int) -> None:
        """One update: gradient of `loss`, then the optimiser's step."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.count(samples)

    def absorb(self, cost: Cost) -> None:
        """Takes in what a training run within this method cost, the seconds that it spent before it was killed included."""
        self.count(cost.samples, cost.gradient_evaluations)
        self.before = max(self.before, cost.seconds - (time.perf_counter() - self.started))

    def state(self) -> dict[str, Any]:
        """What was spent so far, as a checkpoint tells it."""
        spent = self.cost
        return {"seconds": spent.seconds, "samples": spent.samples, "evaluations": spent.gradient_evaluations}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what was spent when a checkpoint was left."""
        self.before, self.samples, self.gradient_evaluations = state["seconds"], state["samples"], state["evaluations"]

    @property
    def cost(self) -> Cost:
        seconds = self.before + time.perf_counter() - self.started
        return Cost(seconds, self.samples, self.gradient_evaluations, self.memory.rise())


@dataclass(frozen=True)
class Checkpoint:
    """Where a training run leaves its state after each epoch, and under which key.

    holds: ids of records that had a part in the weights that it begins with, by which a purge finds its checkpoints, as by those
    of the records that it trains on.
    """

    store: Store
    spec: dict[str, Any]
    every_seconds: float = 10.0
    holds: tuple[str, ...] = ()

    def save(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any], ids: Ids) -> None:
        """Leaves the state of a run that trains on the records `ids`."""
        self.store.put("checkpoint", self.spec, tensors, info, {*ids.tolist(), *self.holds})


class Observer(ABC):
    """Looks on while `train` trains, changes nothing, and leaves what it saw in the run's checkpoints."""

    @abstractmethod
    def see(self, model: nn.Module, rows: Tensor, rate: float) -> None:
        """Called before each update. rows: places of the batch's records in the examples, shape (b,). rate: learning rate."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """All that it saw so far."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what an interrupted run saw."""


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The weights that training and unlearning move, in the model's order: all, or adapters alone where there are some."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def drawn(records: int, size: int, rng: Rng, *, name: str = "") -> Iterator[Tensor]:
    """One pass over the places 0 … records−1 in random order, in batches of `batch_sizes`."""
    order = torch.randperm(records, generator=rng.torch())
    yield from track(torch.split(order, batch_sizes(records, size)), name, total=records, weight=size)


def shuffled(examples: Examples, size: int, rng: Rng, *, name: str = "") -> Iterator[Batch]:
    """One pass over the records in random order, in batches of `batch_sizes` on the records' device."""
    for rows in drawn(len(examples), size, rng, name=name):
        yield examples.batch(rows)


def batch_sizes(records: int, size: int) -> list[int]:
    """Full batches, then the rest. A rest below an eighth of a batch joins the batch before: batch norm has no statistics of one
    record, and bad ones of a few, which a model then keeps."""
    full, rest = divmod(records, size)
    if full and size > 1 and (rest == 1 or 0 < 8 * rest < size):
        return [size] * (full - 1) + [size + rest]
    return [size] * full + [rest] * (rest > 0)


def precision(model: nn.Module, recipe: Recipe) -> AbstractContextManager[Any]:
    """bfloat16 autocast on a GPU, where the recipe allows it."""
    device = next(model.parameters()).device
    if recipe.autocast and device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def train(
    model: nn.Module,
    task: Task,
    examples: Examples,
    recipe: Recipe,
    *,
    rng: Rng,
    meter: Meter,
    checkpoint: Checkpoint | None = None,
    frozen: Iterable[nn.Module] = (),
    observer: Observer | None = None,
    name: str = "training",
) -> None:
    """Trains in place. Epoch e draws order and augmentation from `rng.child("epoch", e)`, so a run that stops
    between epochs resumes to the same weights. Parameters that take no gradient stay as they are; `frozen` modules are
    in evaluation mode, so that their running statistics do too. An `observer` is shown every step."""
    if recipe.augment != "none" and not any(base.dim() == 4 for base in examples.inputs.values()):
        raise BadInput("recipe.augment", got=recipe.augment, expected="none, since the records are no images")
    device = next(model.parameters()).device
    examples = examples.to(device)
    if recipe.channels_last and any(p.dim() == 4 for p in model.parameters()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    opt = optimizer(model, recipe)
    per_epoch = len(batch_sizes(len(examples), recipe.batch_size))
    total, first, saved = recipe.epochs * per_epoch, 0, time.perf_counter()
    if checkpoint:
        first = _resume(model, opt, meter, checkpoint, observer)
    model.train()
    for module in frozen:
        module.eval()
    for epoch in range(first, recipe.epochs):
        stream = rng.child("epoch", epoch)
        crops = stream.child("augment").torch(device)
        with stream.child("dropout").ambient():
            for index, rows in enumerate(
                drawn(len(examples), recipe.batch_size, stream, name=f"{name} {epoch + 1}/{recipe.epochs}")
            ):
                batch, lr = examples.batch(rows), rate(recipe, epoch * per_epoch + index, total)
                for group in opt.param_groups:
                    group["lr"] = lr
                if observer is not None:
                    observer.see(model, rows, lr)
                if recipe.augment != "none":
                    inputs = batch.inputs.items()
                    batch = Batch(
                        {key: augment(x, recipe.augment, crops) if x.dim() == 4 else x for key, x in inputs},
                        batch.targets,
                    )
                with precision(model, recipe):
                    loss = task.loss(model, batch, label_smoothing=recipe.label_smoothing)
                meter.step(loss, opt, len(batch))
        if not bool(torch.isfinite(loss)):  # looked at once an epoch, as it waits for the device
            if checkpoint:
                checkpoint.store.drop("checkpoint", checkpoint.spec)
            raise diverged(f"a loss of {loss.item()} in epoch {epoch + 1}", recipe)
        if checkpoint and epoch + 1 < recipe.epochs and time.perf_counter() - saved > checkpoint.every_seconds:
            _save(model, opt, meter, checkpoint, epoch + 1, examples, observer)
            saved = time.perf_counter()
    if checkpoint:
        checkpoint.store.drop("checkpoint", checkpoint.spec)


def diverged(got: str, recipe: Recipe) -> BadInput:
    """What to say of training that left the finite numbers."""
    return BadInput("training", got=got, expected="finite numbers", do=f"lower recipe.lr (now {recipe.lr:g})")


def _save(
    model: nn.Module,
    opt: torch.optim.Optimizer,
    meter: Meter,
    checkpoint: Checkpoint,
    epoch: int,
    examples: Examples,
    observer: Observer | None,
) -> None:
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    if observer is not None:
        tensors |= {f"observer/{key}": value for key, value in observer.state().items()}
    for index, state in opt.state_dict()["state"].items():
        tensors |= {
            f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items() if value is not None
        }
    info = {"epoch": epoch, **meter.state()}
    checkpoint.save(tensors, info, examples.ids)


def _resume(
    model: nn.Module, opt: torch.optim.Optimizer, meter: Meter, checkpoint: Checkpoint, observer: Observer | None
) -> int:
    """Loads the last checkpoint, if there is one, and returns the epoch to go on with."""
    found = checkpoint.store.get("checkpoint", checkpoint.spec)
    if found is None:
        return 0
    model.load_state_dict({key[6:]: value for key, value in found.tensors.items() if key.startswith("model/")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in found.tensors.items():
        if key.startswith("optimizer/"):
            _, index, entry = key.split("/")
            state.setdefault(int(index), {})[entry] = value
    if observer is not None:
        observer.restore({key[9:]: value for key, value in found.tensors.items() if key.startswith("observer/")})
    opt.load_state_dict({"state": state, "param_groups": opt.state_dict()["param_groups"]})
    meter.restore(found.info)
    return int(found.info["epoch"])
