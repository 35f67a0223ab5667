"""What a deleted record looked like, from the weights before and after: the unlearning inversion attack on features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
