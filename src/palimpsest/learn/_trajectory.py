"""A recorded training run: the weights before each step, whose records each step saw, and its learning rate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Observer
from palimpsest.types import Ids

HEAD = "recorded/"
Origin = Literal["trained", "replayed", "subtracted"]


@dataclass(frozen=True)
class Trajectory:
    """T steps of training on n records, for a model of p parameters.

    weights: before each step, and after the last one, shape (T+1, p), in the order of `model.parameters()` and in their
    dtype (float32), on the CPU. Buffers, such as batch norm's running statistics, are not among them. rows: of each step
    the places of its batch's records in `ids`, shape (b,), int64. rates: learning rates, shape (T,), float64.
    origin: "trained" as it was; "replayed" by a method that walked the whole run anew; "subtracted" where single updates
    were taken out, so that the weights are no longer those that the remaining updates were computed at.
    """

    weights: Tensor
    rows: Sequence[Tensor]
    rates: Tensor
    ids: Ids
    origin: Origin = "trained"

    def __len__(self) -> int:
        return len(self.rates)

    def gone(self, ids: Ids) -> list[Tensor]:
        """For each step which records of its batch are among these, shape (b,), Boolean."""
        named = torch.from_numpy(np.isin(self.ids, ids))
        return [named[rows] for rows in self.rows]

    def kept(self) -> dict[str, Tensor]:
        """As tensors for `Trained.kept`. Only records that a step saw are named in them, in the order of their names."""
        seen, flat = torch.unique(_joined(self.rows), return_inverse=True)
        names = self.ids[seen.numpy()]
        order = np.argsort(names)
        about = json.dumps({"origin": self.origin, "ids": names[order].tolist()}).encode()
        return {
            f"{HEAD}weights": self.weights,
            f"{HEAD}rows": torch.from_numpy(np.argsort(order))[flat],
            f"{HEAD}sizes": torch.tensor([len(rows) for rows in self.rows], dtype=torch.long),
            f"{HEAD}rates": self.rates,
            f"{HEAD}about": torch.tensor(list(about), dtype=torch.uint8),
        }

    @staticmethod
    def of(trained: Trained, asks: str) -> Trajectory:
        """The run that this model's learner recorded. asks: name of the method, for the message.

        Raises BadInput where none was recorded, and where the model's weights are not those that the run ended in, as after
        another method has changed them.
        """
        kept = {key[len(HEAD) :]: value for key, value in trained.kept.items() if key.startswith(HEAD)}
        if not kept:
            got, expected = "a model without a recorded run", "one trained by the learner recorded"
            raise BadInput(asks, got=got, expected=expected, do="pass --learner recorded")
        about = json.loads(bytes(kept["about"].tolist()))
        rows = _parted(kept["rows"], kept["sizes"])
        ids = np.asarray(about["ids"], dtype=np.str_)
        found = Trajectory(kept["weights"], rows, kept["rates"], ids, about["origin"])
        if not torch.equal(found.weights[-1], flat_weights(trained.model).cpu()):
            got, do = "other weights than those that its recorded run ended in", "unlearn from the model as recorded"
            raise BadInput(asks, got=got, expected="the model at the end of its recorded run", do=do)
        return found


class Recorder(Observer):
    """Writes a trajectory of at most `steps` steps while a model is trained on the records `ids`."""

    def __init__(self, model: nn.Module, ids: Ids, steps: int) -> None:
        start = flat_weights(model)
        self.ids = ids
        self.weights = torch.empty((steps + 1, len(start)), dtype=start.dtype)
        self.rows: list[Tensor] = []
        self.rates: list[float] = []

    def see(self, model: nn.Module, rows: Tensor, rate: float) -> None:
        self.weights[len(self.rates)] = flat_weights(model)
        self.rows.append(rows.clone())
        self.rates.append(rate)

    def state(self) -> Mapping[str, Tensor]:
        return {
            "weights": self.weights[: len(self.rates)],
            "rows": _joined(self.rows),
            "sizes": torch.tensor([len(rows) for rows in self.rows], dtype=torch.long),
            "rates": torch.tensor(self.rates, dtype=torch.float64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.rows, self.rates = _parted(state["rows"], state["sizes"]), state["rates"].tolist()
        self.weights[: len(self.rates)] = state["weights"]

    def finish(self, model: nn.Module) -> Trajectory:
        """The run, which ends in the model as it is now."""
        steps = len(self.rates)
        self.weights[steps] = flat_weights(model)
        rates = torch.tensor(self.rates, dtype=torch.float64)
        return Trajectory(self.weights[: steps + 1], self.rows, rates, self.ids)


def flat_weights(model: nn.Module) -> Tensor:
    """All parameters in one vector, a copy, shape (p,)."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


@torch.no_grad()
def set_weights(model: nn.Module, weights: Tensor) -> None:
    """Fills the parameters, in place, from a vector of shape (p,) on any device."""
    parameters = list(model.parameters())
    pieces = torch.split(weights, [parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.copy_(piece.view(parameter.shape))


def gibibytes(steps: int, weights: int, records: int, width: int = 4) -> float:
    """Size of a trajectory. records: those of all steps together. width: bytes of a weight."""
    return ((steps + 1) * weights * width + 8 * (records + 2 * steps)) / 2**30


def _joined(rows: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.long), *rows])


def _parted(rows: Tensor, sizes: Tensor) -> list[Tensor]:
    return list(torch.split(rows, sizes.tolist())) if len(sizes) else []
