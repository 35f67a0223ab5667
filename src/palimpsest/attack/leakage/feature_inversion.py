"""What a deleted record looked like, from the weights before and after: the unlearning inversion attack on features."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.attack._gradients import orthonormal
from palimpsest.attack.base import Guess
from palimpsest.attack.leakage._matching import Descent, match
from palimpsest.attack.leakage.base import PROVIDER, Inversion
from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.task import Classification, as_classification
from palimpsest.threat import View


@dataclass(frozen=True)
class FeatureInversion(Inversion):
    """Hu et al., "Learn What You Want to Unlearn" (S&P 2024), section 3.2.1: gradient inversion on the difference of two models.

    Deleting undoes a descent step, so the gradient of the deleted records points along θ_u − θ (their Eq. 12 adds it back; their
    Eq. 2 prints the other sign, with which nothing is recovered). Inputs are looked for whose gradient at θ points the same way:
    1 − cosine + α·total variation, by AdamW on the gradient's signs, from Gaussian noise, several restarts, the lowest loss
    wins (Geiping et al. 2020). The provider holds the two stored models and nothing else but the labels, as the paper assumes;
    with `labels` = gradient it reads them off the last layer, with optimised it finds them along with the inputs, and knows
    only how many there are.

    What rounding leaves of a difference limits it: single_gradient moves weights of size 0.1 by 1e-5 of a gradient that is
    small itself where the model is confident, and a weight stored in float32 keeps 1e-8. Whatever comes out looks like
    something, so it is read as `rank` among unseen records of the same class, beside the placebo, the known leak and the rank
    that the mean colour alone gives. That it finds nothing does not prove that nothing leaks.

    The gradient of a network of ReLU jumps where a unit turns on or off, and between jumps its slope says nothing of them: the
    search gets stuck. With `sharpness` (4, say) it looks at a network whose units turn softly and whose gradient is nearly the
    same; `compared` = layers keeps biases, and the few layers with long gradients, from deciding alone. Both are ours, and off by
    default, as the paper has neither. With both a third of the steps ranked records as high (study inversion-ablation).
    """

    threat = PROVIDER
    paper = "inversion paper, section 3.2.1, Eq. 2 to 6"
    about = "recovers deleted records from the difference of two models' weights"
    primary = "feature_inversion.rank"

    restarts: int = setting(5, "descents from fresh noise; the lowest loss counts", source="the paper's code", least=1)
    weight_decay: float = setting(0.01, "AdamW's weight decay", source="the paper's code: its default", least=0)
    labels: Literal["known", "gradient", "optimised"] = setting(
        "known", "known; read off the last layer's difference; or found along with the inputs", source="paper, 3.2.1"
    )
    sign: Literal["hard", "soft", "none"] = setting(
        "hard",
        "what AdamW is given of the gradient: its signs, a smooth version of them, itself",
        source="Geiping et al. 2020; soft: ours",
    )
    schedule: Literal["halved", "cosine"] = setting(
        "halved", "halved at 3/8, 5/8 and 7/8; or along a cosine to 0", source="the paper's code; cosine: ours"
    )
    warmup: int = setting(0, "iterations over which the rate rises", source="ours", least=0)
    norm_prior: float = setting(
        0.0,
        "weight of the distance from the statistics that batch norm keeps",
        source="Yin et al. 2021; paper: none",
        least=0,
    )
    sharpness: float = setting(
        0.0,
        "of the softplus that takes the place of ReLU in the attacker's copy; 0: ReLU itself",
        source="ours",
        least=0,
    )
    compared: Literal["whole", "layers"] = setting(
        "whole",
        "the gradient as a whole; or of each layer that of its weight alone, all layers alike",
        source="ours",
    )
    batching: Literal["probe", "vmap", "loop"] = setting(
        "probe", "restarts at once, one by one, or the faster in a timed probe (they differ by rounding)", source="ours"
    )

    def observe(self, view: View, *, rng: Rng) -> Guess:
        """recovered: (k, *shape), in no order; labels (k,) that they were taken for; losses of the restarts, (restarts,)."""
        task = as_classification(view.task, name_of(self))
        before, after = view.before.weights(), view.after.weights()
        wanted = difference(before, after)
        return self.invert(before, task, wanted, view.know("labels"), rng)

    def invert(
        self,
        model: nn.Module,
        task: Classification,
        wanted: Sequence[Tensor],
        known: Tensor,
        rng: Rng,
        *,
        emphasis: Sequence[Tensor] | None = None,
        without: Sequence[Sequence[Tensor]] = (),
    ) -> Guess:
        """Looks for records whose gradient at `model` points along `wanted`. known: the deleted records' labels. emphasis,
        without: see `match`."""
        free = self.labels == "optimised"
        if len(known) and not (known.min() >= 0 and known.max() < task.classes):
            got = f"{int(known.min())} to {int(known.max())}"
            raise BadInput("labels of deleted records", got=got, expected=f"classes from 0 to {task.classes - 1}")
        if free:
            targets = torch.full((len(known), task.classes), 1 / task.classes)
        else:
            labels = known if self.labels == "known" else labels_of(model, wanted, len(known), task.classes)
            targets = F.one_hot(labels.cpu(), task.classes).float()
        if self.compared == "layers":
            seen = wanted if emphasis is None else [w * e for w, e in zip(wanted, emphasis, strict=True)]
            even = evened(seen)
            emphasis = even if emphasis is None else [e * f for e, f in zip(emphasis, even, strict=True)]
            without = orthonormal([[d * f for d, f in zip(one, even, strict=True)] for one in without])
        if self.sharpness:
            model = softened(model, self.sharpness)
        how = self._descent()
        found = match(model, task, wanted, targets, how, free_targets=free, emphasis=emphasis, without=without, rng=rng)
        best = found.best
        return Guess(
            {"recovered": found.inputs[best], "labels": found.targets[best].argmax(1), "losses": found.loss},
            {"loss": float(found.loss[best]), "weights": sum(part.numel() for part in wanted)},
            gradients=found.evaluations,
        )

    def _descent(self) -> Descent:
        return Descent(
            iterations=self.iterations,
            restarts=self.restarts,
            lr=self.lr,
            total_variation=self.total_variation,
            weight_decay=self.weight_decay,
            sign=self.sign,
            schedule=self.schedule,
            warmup=self.warmup,
            norm_prior=self.norm_prior,
            batching=self.batching,
        )


def difference(before: nn.Module, after: nn.Module) -> list[Tensor]:
    """θ_u − θ for each parameter, in float64: the direction of the deleted records' gradient. Raises BadInput for models that are
    not of one shape, and for equal weights."""
    one, other = dict(before.named_parameters()), dict(after.named_parameters())
    shapes: list[Mapping[str, tuple[int, ...]]] = [{n: tuple(p.shape) for n, p in m.items()} for m in (one, other)]
    if shapes[0] != shapes[1]:
        strange = next(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
        got = f"{strange} of shape {shapes[0].get(strange)} before and {shapes[1].get(strange)} after"
        raise BadInput("two models", got=got, expected="one architecture", do="compare models of the same kind")
    found = [(other[name].detach().double() - value.detach().double()) for name, value in one.items()]
    if not any(bool(part.any()) for part in found):
        raise BadInput("two models", got="equal weights", expected="a difference: nothing was unlearned here")
    return found


def softened(model: nn.Module, sharpness: float) -> nn.Module:
    """A copy with softplus, ln(1 + e^(sharpness·x)) / sharpness, for each ReLU. Raises BadInput where it has none as a module."""
    found = copy.deepcopy(model)
    places = [(m, name) for m in found.modules() for name, child in m.named_children() if isinstance(child, nn.ReLU)]
    if not places:
        got = f"{type(model).__name__} without nn.ReLU"
        raise BadInput("sharpness", got=got, expected="a network of ReLU", do="set sharpness=0")
    for module, name in places:
        setattr(module, name, nn.Softplus(beta=sharpness))
    return found


def evened(gradient: Sequence[Tensor]) -> list[Tensor]:
    """Factors, each a scalar, that bring the gradient in each weight of two dimensions or more to length one, and take the others
    out. Raises BadInput where nothing is left."""
    lengths = [float(part.double().norm()) if part.dim() > 1 else 0.0 for part in gradient]
    if not any(lengths):
        raise BadInput("compared", got="weights that did not move", expected="one that did", do="set compared=whole")
    return [torch.tensor(1 / size if size else 0.0, dtype=torch.float64) for size in lengths]


def labels_of(model: nn.Module, wanted: Sequence[Tensor], count: int, classes: int) -> Tensor:
    """The classes of `count` records, read off the gradient of the last layer, shape (count,), sorted.

    The gradient in the last bias (else the sum of a row of the last weight, where features are not negative) is the mean posterior
    minus the share of the class (Zhao et al. 2020): below zero for a class that is there, unless its records are known surely.
    Classes below zero come first, then each further record goes to the class that is still owed most. Exact for one record.
    Raises BadInput where the last layer does not have one row a class.
    """
    last = [part for part, value in zip(wanted, model.parameters(), strict=True) if value.shape[:1] == (classes,)]
    if not last:
        raise BadInput("labels", got="no layer with one row a class", expected="one", do="set labels=known")
    owed = (last[-1] if last[-1].dim() == 1 else last[-1].flatten(1).sum(1)).double().clone()
    share = owed.clamp_max(0).sum() / count
    first = torch.argsort(owed)[: min(count, int((owed < 0).sum()))]
    found = first.tolist()
    owed[first] -= share
    while len(found) < count:
        lowest = int(owed.argmin())
        found.append(lowest)
        owed[lowest] -= share
    return torch.tensor(sorted(found))
