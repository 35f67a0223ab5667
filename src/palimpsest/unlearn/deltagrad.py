"""DeltaGrad: walk the recorded run again without the forgotten records, most steps without a pass over the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.errors import BadInput
from palimpsest.learn._trajectory import Trajectory, set_weights
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter
from palimpsest.learn.recipe import Recipe
from palimpsest.progress import track
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Examples
from palimpsest.unlearn._quasi_newton import QuasiHessian
from palimpsest.unlearn.base import Unlearner

TOLERANCE = 0.01  # relative error of the recorded first gradient above which the run is not what it should be


@dataclass(frozen=True)
class DeltaGrad(Unlearner):
    """The recorded run of SGD, walked again on its batches less the forgotten records (Wu, Dobriban & Davidson 2020,
    algorithm 1 in its SGD form; after the paper, details reconstructed).

    w are the recorded weights, v the new ones. The walk begins at the first step that saw a forgotten record. In its first
    `burn_in` steps, and in every `period`-th after them, the gradient over the remaining records is computed. In the
    others it is (n·(g + B(v − w) − λv) − Σ∇ℓ_forgotten(v))/(n − k) + λv, for a batch of n with k forgotten ones:
    g = (w_s − w_{s+1})/η is its recorded gradient, weight decay λ included, and B an L-BFGS approximation of the Hessian
    from the exact steps. Where a pair shows no positive curvature, steps are exact until one does. A batch of forgotten
    records only is left out.

    The paper bounds the distance to training on the remaining records for strongly convex, smooth losses; for others, and
    so for networks, it guarantees nothing, and no noise hides what remains of the forgotten records. With `period` 1 the
    result is that training, up to rounding, on the batches as they were drawn from all records; retraining draws others.

    Raises BadInput for batch norm and dropout, whose gradients are no sums over records or cannot be had again, and for a
    run whose recorded first gradient is not that of its batch. On a GPU the run must have been without autocast, whose
    rounding is larger than the differences of gradients that B is made of. The replay becomes the model's recorded run.
    """

    needs = "recorded"
    needs_recipe = {"optimizer": "sgd", "momentum": 0.0, "augment": "none"}  # noqa: RUF012 - never changed
    mixes = False
    aliases = ("DeltaGrad",)
    about = "walk the recorded run again without the forgotten records, most steps by quasi-Newton estimates"
    paper = "Wu et al. 2020"
    deviations = "starts at the first step that held a forgotten record; no batch norm, no dropout, no momentum"
    spends = (
        "one in `period` steps of training, and the gradients of the forgotten records; memory and disk for every step"
    )
    use = (
        "on convex models with weight decay, where it is far nearer to retraining on the same batches than "
        "doing nothing; weak on deep ones"
    )

    burn_in: int = setting(10, "first steps, which are exact (j₀)", source="the paper: 10", least=0)
    period: int = setting(
        5, "each so many-th of the later steps is exact (T₀)", source="the paper: 5", least=1, search=(2, 50)
    )
    history: int = setting(2, "pairs that the quasi-Hessian is made of (m)", source="the paper: 2", least=1)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> Mapping[str, Tensor]:
        model.requires_grad_(True)  # the run was recorded with all weights
        run, recipe = Trajectory.of(trained, "deltagrad"), trained.recipe
        if recipe is None:
            raise BadInput("deltagrad", got="weights without a recipe", expected="how they were trained")
        check(model, run, recipe)
        model.eval()
        batches = Parts(run, retain, forget)
        first = next((step for step in range(len(run)) if len(batches.forgotten[step])), len(run))
        curvature, failed, decay = QuasiHessian(self.history), False, recipe.weight_decay
        new, place = run.weights[first].to(trained.device), first
        weights = torch.empty_like(run.weights[: batches.count + 1])
        weights[:first] = run.weights[:first]
        for step in track(range(first, len(run)), "deltagrad", total=len(run) - first):
            rate, since = float(run.rates[step]), step - first
            kept, gone = batches.remaining[step], batches.forgotten[step]
            if not len(kept):
                continue
            weights[place], place = new, place + 1
            set_weights(model, new)
            old, after = (run.weights[at].to(new) for at in (step, step + 1))
            count, change, recorded = len(kept) + len(gone), new - old, (old - after) / rate
            lost = gradient_sum(model, trained.task, forget, gone, recipe, meter)
            due = since < self.burn_in or (since - self.burn_in) % self.period == 0
            if due or failed or not len(curvature):
                left = gradient_sum(model, trained.task, retain, kept, recipe, meter)
                whole = (left + lost) / count + decay * new
                if step == first and run.origin == "trained":
                    compare(recorded, whole, old, rate)
                if step > first:
                    failed = not curvature.remember(change, whole - recorded)
            else:
                left = count * (recorded + curvature.times(change) - decay * new) - lost
            new = new - rate * (left / len(kept) + decay * new)
        weights[place] = new
        set_weights(model, new)
        return {**trained.kept, **batches.replayed(run, weights).kept()}


class Parts:
    """The batches of a run, each parted: places of its remaining records in `retain`, and of its forgotten ones in `forget`."""

    def __init__(self, run: Trajectory, retain: Examples, forget: Examples) -> None:
        places = {
            str(name): (part, at)
            for part, records in enumerate((retain, forget))
            for at, name in enumerate(records.ids)
        }
        lost = [name for name in run.ids.tolist() if name not in places]
        if lost:
            got = f"record {lost[0]!r} of the recorded run in neither set"
            raise BadInput("deltagrad", got=got, expected="every record of it, to be retained or forgotten")
        found = torch.tensor([places[name] for name in run.ids.tolist()], dtype=torch.long).view(-1, 2)
        parted = [found[rows] for rows in run.rows]
        self.remaining = [part[part[:, 0] == 0, 1] for part in parted]
        self.forgotten = [part[part[:, 0] == 1, 1] for part in parted]
        self.stays = [found[rows, 0] == 0 for rows in run.rows]
        self.count = sum(len(part) > 0 for part in self.remaining)

    def replayed(self, run: Trajectory, weights: Tensor) -> Trajectory:
        """The run as it was walked again, with these weights before its steps and after the last."""
        left = [step for step in range(len(run)) if len(self.remaining[step])]
        rows = [run.rows[step][self.stays[step]] for step in left]
        return Trajectory(weights, rows, run.rates[left], run.ids, "replayed")


def gradient_sum(
    model: nn.Module, task: Task, records: Examples, places: Tensor, recipe: Recipe, meter: Meter
) -> Tensor:
    """Sum of the training loss gradients of some records, shape (p,); no evaluation where there are none."""
    parameters = list(model.parameters())
    if not len(places):
        return torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype, device=parameters[0].device)
    loss = task.loss(model, records.batch(places), reduction="sum", label_smoothing=recipe.label_smoothing)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    meter.count(len(places))
    return torch.cat([part.reshape(-1) for part in found])


def check(model: nn.Module, run: Trajectory, recipe: Recipe) -> None:
    """Raises BadInput for a run that cannot be walked again record by record."""
    if run.origin == "subtracted":
        got = "a run with updates taken out of it, as amnesiac leaves it"
        raise BadInput("deltagrad", got=got, expected="one whose gradients belong to its weights")
    if recipe.autocast and next(model.parameters()).is_cuda:
        got, do = "a run with autocast on a GPU", "pass --set recipe.autocast=false"
        raise BadInput("deltagrad", got=got, expected="one in full precision", do=do)


def compare(recorded: Tensor, found: Tensor, weights: Tensor, rate: float) -> None:
    """Raises BadInput where the recorded gradient is not the one found at the same weights on the same records, beyond
    what the rounding of the recorded weights explains."""
    rounding = 2 * torch.finfo(weights.dtype).eps * float(weights.norm()) / rate
    off, size = float((recorded - found).norm()), float(found.norm())
    if not off <= TOLERANCE * size + rounding:
        got = f"a recorded gradient that is {off / max(size, 1e-45):.1g} times its size from that of its batch"
        do = "record a run of plain SGD on these records"
        raise BadInput("deltagrad", got=got, expected="a run of plain SGD, whose gradients can be had again", do=do)
