"""The kinds of problem. An unlearner or an attack asks the task, and never asks which kind it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from palimpsest.catalog import name_of
from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.types import Batch, Examples, Split


class Task(ABC):
    """What a model is asked to do, and how well it does it. Shapes: n records, k classes or outputs.

    name: by which models, methods, attacks and verifiers say which tasks they are for (`check_task`).
    """

    name: ClassVar[str] = ""
    vectorises: ClassVar[bool] = True  # whether torch.func.vmap can take its models

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    domain: tuple[Tensor, Tensor]
    attacked_input: str

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON-ready, for artifact keys."""

    @property
    @abstractmethod
    def answer(self) -> tuple[int, ...]:
        """Shape of what a model answers to one record."""

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model answers (logits), with gradient."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, *, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
        """The training loss; reduction "mean", "sum" or "none" (shape (n,))."""

    @abstractmethod
    def loss_of(self, outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        """The loss of given outputs (for `torch.func`)."""

    @abstractmethod
    def error(self, model: nn.Module, batch: Batch) -> Float[Tensor, " n"]:
        """Error of each record (0 or 1 for classification)."""

    @abstractmethod
    def divergence(self, outputs: Tensor, posterior: Tensor) -> Float[Tensor, " n"]:
        """How far the outputs are from another model's posterior, per record; differentiable in `outputs`."""

    @abstractmethod
    def distillation(self, student: nn.Module, teacher: nn.Module, batch: Batch, temperature: float) -> Tensor:
        """How far the student's answers on a batch are from the teacher's: a mean over records, with gradient in the student."""

    @abstractmethod
    def randomise(self, targets: Tensor, rng: torch.Generator) -> Tensor:
        """Targets drawn at random among all that are possible, the true one included."""

    @abstractmethod
    def posterior(self, model: nn.Module, batch: Batch) -> Tensor:
        """The model's answer as probabilities, without gradient, the model in the mode it is in."""

    def perceived(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the loss can be differentiated in: the attacked input, or what the model makes of one that is no number."""
        return batch.inputs[self.attacked_input].float()

    def loss_at(self, model: nn.Module, batch: Batch, perceived: Tensor, *, reduction: str = "mean") -> Tensor:
        """The loss with the attacked input as `perceived` has it."""
        inputs = {**batch.inputs, self.attacked_input: perceived}
        return self.loss(model, Batch(inputs, batch.targets), reduction=reduction)

    def noised(self, inputs: Mapping[str, Tensor], deviation: float, rng: Rng) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs with Gaussian noise of so many standard deviations on the attacked one, cut off at its range; and what `drawn`
        makes the noise of: here itself, of deviation 1, before anything was cut off."""
        clean = inputs[self.attacked_input]
        noise = torch.randn(clean.shape, generator=rng.torch())
        low, high = (edge.float().cpu() for edge in self.domain)
        handed_in = torch.clamp(clean + noise * self.unit(deviation, clean), low, high)
        return {**inputs, self.attacked_input: handed_in}, noise

    def drawn(self, noise: Tensor) -> Tensor:
        """The noise of `noised`, of deviation 1 in each value of what is perceived."""
        return noise

    def unit(self, deviation: float, like: Tensor) -> Tensor:
        """So many standard deviations of what is perceived, broadcast over records."""
        return deviation * torch.tensor(self.std).view(1, -1, *([1] * (like.dim() - 2)))

    def remove(self, examples: Examples, ids: Iterable[str]) -> Examples:
        """The retain data once these records are gone (for a graph, their edges drop out too)."""
        return examples.without(ids)

    def prepare(self, split: Split) -> Split:
        """The split with the inputs that the task adds to each record."""
        return split


@dataclass(frozen=True)
class Classification(Task):
    """One of `classes` for each record.

    shape: one record's input shape. mean, std: for the normalisation inside the model; they come from constants (images) or
    from the validation records (features), never from training records, so that retraining without some of those is exact.
    domain: lowest and highest value of the attacked input.
    """

    name = "classification"

    classes: int
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    domain: tuple[Tensor, Tensor]
    attacked_input: str = "input"

    @staticmethod
    def of(split: Split) -> Classification:
        """Raises BadInput for text that is read as tokens, which are no numbers."""
        if split.kind == "tokens":
            do = "choose a --model such as gpt2, or leave out the number of tokens"
            raise BadInput("data", got="text as tokens", expected="images or features", do=do)
        name = next(iter(split.train.inputs))
        if split.kind == "image":
            mean, std = [0.5] * split.shape[0], [0.25] * split.shape[0]
        else:
            values = split.validation.batch().inputs[name].double()
            mean = values.mean(0).flatten().tolist()
            spread = values.std(0, correction=min(1, len(values) - 1)).flatten()
            std = [value if value > 1e-8 else 1.0 for value in spread.tolist()]
        return Classification(len(split.classes), split.shape, tuple(mean), tuple(std), split.domain, name)

    def identity(self) -> dict[str, Any]:
        """JSON-ready, for artifact keys."""
        return {
            "task": "classification",
            "classes": self.classes,
            "shape": list(self.shape),
            "mean": self.mean,
            "std": self.std,
        }

    @property
    def answer(self) -> tuple[int, ...]:
        return (self.classes,)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        if len(batch.inputs) == 1:
            answer = model(next(iter(batch.inputs.values())))
        else:
            answer = model(**batch.inputs)
        logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
        return logits

    def loss(self, model: nn.Module, batch: Batch, *, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
        logits = self.outputs(model, batch)
        return F.cross_entropy(logits.float(), batch.targets, reduction=reduction, label_smoothing=label_smoothing)

    def loss_of(self, outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(outputs, targets, reduction=reduction)

    @torch.no_grad()
    def error(self, model: nn.Module, batch: Batch) -> Float[Tensor, " n"]:
        return (self.outputs(model, batch).argmax(1) != batch.targets).float()

    def divergence(self, outputs: Float[Tensor, "n k"], posterior: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """KL(posterior ‖ softmax(outputs)), in nats."""
        return F.kl_div(F.log_softmax(outputs, 1), posterior, reduction="none").sum(1)

    def distillation(self, student: nn.Module, teacher: nn.Module, batch: Batch, temperature: float) -> Tensor:
        """T²·KL(teacher ‖ student) between posteriors at temperature T, in nats (Hinton et al. 2015)."""
        with torch.no_grad():
            wanted = F.log_softmax(self.outputs(teacher, batch) / temperature, 1)
        found = F.log_softmax(self.outputs(student, batch) / temperature, 1)
        return F.kl_div(found, wanted, reduction="batchmean", log_target=True) * temperature**2

    def randomise(self, targets: Int[Tensor, " n"], rng: torch.Generator) -> Int[Tensor, " n"]:
        drawn = torch.randint(self.classes, targets.shape, generator=rng, device=rng.device)
        return drawn.to(targets.device)

    @torch.no_grad()
    def posterior(self, model: nn.Module, batch: Batch) -> Float[Tensor, "n k"]:
        return F.softmax(self.outputs(model, batch).float(), 1)


def reduced(values: Float[Tensor, " n"], reduction: str) -> Tensor:
    """The mean or the sum of the records' values, or these."""
    return values.mean() if reduction == "mean" else values.sum() if reduction == "sum" else values


def check_task(member: Any, task: str) -> None:
    """Raises BadInput where a model, learner, method, attack, verifier or defence is not for this task."""
    tasks: tuple[str, ...] = getattr(member, "tasks", (Classification.name,))
    if task not in tasks:
        got, do = f"a model of the task {task}", "leave it out, or choose another --model"
        raise BadInput(name_of(member), got=got, expected=f"one of the task {' or '.join(tasks)}", do=do)


def as_classification(task: Task, who: str) -> Classification:
    """The task, where it is a classification. Raises BadInput, as `who`, where it is another."""
    if not isinstance(task, Classification):
        got, do = f"the task {task.name}", "leave it out, or choose another --model"
        raise BadInput(who, got=got, expected=f"the task {Classification.name}", do=do)
    return task


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode; afterwards each of its modules is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def predict(task: Task, model: nn.Module, examples: Examples, *, batch_size: int = 512) -> Tensor:
    """Posteriors of all records, shape (n, k), or images, shape (n, c, h, w), on the CPU, the model in evaluation mode.

    Raises BadInput where an answer is not finite, which would count as just another class.
    """
    with evaluating(model):
        parts = [task.posterior(model, batch).cpu() for batch in examples.batches(batch_size)]
    answers = torch.cat(parts)
    broken = int((~torch.isfinite(answers)).flatten(1).any(1).sum())
    if broken:
        got = f"answers that are NaN or infinite for {broken} of {len(answers)} records"
        raise BadInput("model", got=got, expected="finite ones", do="look at the size of its weights")
    return answers


def seeded_targets(task: Task, targets: Tensor, rng: Rng) -> Tensor:
    """`task.randomise` from a named stream."""
    return task.randomise(targets, rng.torch())
