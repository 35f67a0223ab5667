"""What the attacks share that recover deleted records: the provider's view, how near they come, whom that identifies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.leakage import _tabular
from palimpsest.case import Case
from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.learn._extractor import Extractor, Eyes
from palimpsest.measures.identification import assign, mean_colour, normalised_rank, squared
from palimpsest.measures.image import psnr, ssim
from palimpsest.measures.intervals import mean, share, statistic
from palimpsest.measures.perceptual import lpips_distance, perceptual
from palimpsest.rng import Rng
from palimpsest.task import predict
from palimpsest.threat import ThreatModel, same_weights
from palimpsest.types import Array, Examples, Measure, Scores

PROVIDER = ThreatModel(
    roles=("provider",),
    goals=("G3",),
    knowledge="K1",
    phases=("P3",),
    sees="weights",
    models="both",
    knows=("labels",),
)
"""The honest-but-curious server of the inversion paper: both weights, and the labels of what was deleted."""

CEILING = 80.0
"""PSNR in dB that higher ones count as."""
FEW = 99
"""Decoys at most where each distance takes passes through a network."""


@dataclass(frozen=True)
class Inversion(Eyes, Attack, partial=True):
    """Base of attacks that recover deleted records. A member's `observe` gives recovered (k, *shape), in no order, the labels (k,)
    that they were taken for, and in `info` the loss that it ended with and how many weights told it. The rest is here."""

    compares = True
    revision = 4  # steps are shares of the range; restarts are told apart by their gradients alone

    iterations: int = setting(10_000, "gradient steps", source="inversion paper's code", least=1)
    lr: float = setting(
        0.04, "highest step, as a share of the range of values", source="inversion paper's code", above=0
    )
    total_variation: float = setting(
        1e-2,
        "weight of the mean absolute difference of neighbouring pixels (α)",
        source="inversion paper's code",
        least=0,
    )
    decoys: int = setting(399, "at most this many unseen records of the class to be told from", source="ours", least=1)
    lpips: bool = setting(
        False, "whether LPIPS is taken too, by the package of that name", source="inversion paper, 4.1"
    )

    def score(self, guess: Guess, case: Case) -> Scores:
        """See `scores_of`. separable: whether there are as many weights as values in all deleted records together."""
        recovered = guess.tensors["recovered"]
        separable = float(recovered.numel() <= guess.info["weights"])
        extra = {"loss": guess.info["loss"], "separable": separable}
        return scores_of(case, recovered, guess.tensors["labels"], self.decoys, self.eyes, extra, self.lpips)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        return measures_of(scores, name_of(self), self.eyes)


def scores_of(
    case: Case,
    recovered: Tensor,
    labels: Tensor,
    decoys: int,
    extractor: Extractor,
    extra: Mapping[str, float],
    published: bool = False,
) -> Scores:
    """Scores per deleted record, of (k, *shape) recovered samples whose classes were taken to be `labels`, shape (k,).

    Samples come in no order: the Hungarian method matches them with the records. order: the sample that each record got. mse,
    psnr, and of images ssim and `perceptual` (by a classifier of the same data). rank: normalised rank of the record among
    `decoys` unseen records of its class by squared distance to the sample; perceptual_rank the same by the perceptual distance,
    among the first 99, where the classifier was taught neither the record nor its decoys; colour_rank by mean colours alone. Rows
    of a table are compared as shares of their features' ranges, and have `_tabular`'s arrays too. label: the true class;
    label_right: whether the sample's was taken to be it. confidence: the original's in the record's true class. extra: numbers that
    are the same for all, such as the attack's own loss. published: whether `lpips` is among them, of images. Raises BadInput where
    it is and cannot be had.
    """
    name = case.task.attacked_input
    truth = case.forget.batch().inputs[name].float().cpu()
    recovered = recovered.detach().float().cpu()
    if len(recovered) != len(truth):
        got, do = f"{len(recovered)} samples and {len(truth)} records", "forget fewer, or use more test records"
        raise BadInput("recovered", got=got, expected="as many of each, in the placebo too", do=do)
    unseen = {int(c): _decoys(case, int(c), decoys) for c in torch.unique(case.forget.targets.cpu())}
    rows = truth.dim() == 2
    if rows:
        recovered, truth = _tabular.scaled(case, recovered), _tabular.scaled(case, truth)
    order = assign(recovered, truth, squared)
    drawn, targets = recovered[order], case.forget.targets.cpu()
    distances = {"rank": squared, "colour_rank": mean_colour}
    arrays: dict[str, Array] = {"order": order.numpy(), "label": targets.numpy()}
    arrays["mse"] = squared(drawn, truth).numpy()
    if truth.dim() == 4:
        network = case.extract(extractor, case.split)
        arrays["psnr"] = psnr(drawn, truth, ceiling=CEILING).numpy()
        arrays["ssim"] = ssim(drawn, truth).numpy()
        arrays["perceptual"] = perceptual(network, drawn, truth).numpy()
        if published:
            arrays["lpips"] = lpips_distance(drawn, truth).numpy()
        if extractor.given or case.split.public is not None:  # else it was taught the record, and not its decoys
            distances["perceptual_rank"] = lambda one, other: perceptual(network, one, other)
    if rows:
        arrays |= _tabular.arrays_of(case, drawn, truth)
    for what, distance in distances.items():
        most = FEW if what == "perceptual_rank" else decoys
        ranks = [
            normalised_rank(drawn[i : i + 1], truth[i : i + 1], unseen[int(c)][None, :most], distance)
            for i, c in enumerate(targets)
        ]
        arrays[what] = torch.cat(ranks).numpy()
    arrays["decoys"] = np.array([len(unseen[int(c)]) for c in targets])
    arrays["label_right"] = (labels.cpu()[order] == targets).numpy()
    sure = predict(case.task, case.original.model, case.forget).cpu()
    arrays["confidence"] = sure.gather(1, targets[:, None]).flatten().numpy()
    arrays |= {key: np.full(len(targets), value) for key, value in extra.items()}
    return Scores("record", case.forget.ids, arrays)


def measures_of(scores: Scores, attack: str, extractor: Extractor) -> tuple[Measure, ...]:
    """Means over deleted records: `rank` (0.5 by chance), `rank_over_colour` (what it has beyond the mean colour's), and the
    distances; `identified_rate`: records nearer than every decoy, 1/(decoys + 1) by chance; `victim_confidence`: the original's in
    their classes. `root_mse` is the inversion paper's MSE. `perceptual_…` is named after the classifier that it goes by, and is not
    LPIPS, which is `lpips`, where it was asked for. Whom it exposes most: `rank` at each class, and of the distances `least_…` and
    `most_…`, over records; a bootstrap's interval of those has nothing beyond what was found. Rows of a table have `_tabular`'s
    too."""
    found = [mean(f"{attack}.rank", scores["rank"]), mean(f"{attack}.colour_rank", scores["colour_rank"])]
    found += [
        mean(f"{attack}.rank_over_colour", scores["rank"] - scores["colour_rank"]),
        share(f"{attack}.identified_rate", scores["rank"] == 1.0),
        mean(f"{attack}.mse", scores["mse"]),
        mean(f"{attack}.root_mse", np.sqrt(scores["mse"])),
    ]
    present = np.unique(scores["label"])
    found += [mean(f"{attack}.rank", scores["rank"][scores["label"] == c], at={"class": float(c)}) for c in present]
    apart = {"root_mse": np.sqrt(scores["mse"])}
    if "psnr" in scores.arrays:
        found += [mean(f"{attack}.{name}", scores[name]) for name in ("psnr", "ssim")]
        found.append(mean(f"{attack}.perceptual_{extractor.short}", scores["perceptual"]))
        if "perceptual_rank" in scores.arrays:
            found.append(mean(f"{attack}.perceptual_rank", scores["perceptual_rank"]))
        apart |= {"psnr": scores["psnr"], f"perceptual_{extractor.short}": scores["perceptual"]}
    if "lpips" in scores.arrays:
        found.append(mean(f"{attack}.lpips", scores["lpips"]))
        apart["lpips"] = scores["lpips"]
    for name, values in apart.items():
        found += [_extreme(f"{attack}.least_{name}", np.min, values), _extreme(f"{attack}.most_{name}", np.max, values)]
    found += _tabular.measures_of(scores, attack)
    found.append(share(f"{attack}.label_right_rate", scores["label_right"]))
    if "confidence" in scores.arrays:
        found.append(mean(f"{attack}.victim_confidence", scores["confidence"]))
    if "loss" in scores.arrays:
        found.append(mean(f"{attack}.matching_loss", scores["loss"]))
    return tuple(found)


def check_moved(case: Case) -> None:
    """Raises BadInput where the original's weights are the subject's: nothing was unlearned, and every guess is as good."""
    if same_weights(case.original.model, case.subject.model):
        raise BadInput("two models", got="equal weights", expected="a difference: nothing was unlearned here")


def _extreme(name: str, of: Callable[..., Array], values: Array) -> Measure:
    return statistic(name, lambda drawn: of(drawn, axis=-1), values, together=True)


def _decoys(case: Case, label: int, most: int) -> Tensor:
    """Records of a class that no model was trained on, at most so many, the same for all models of a case, (d, *shape)."""
    unseen: Examples = case.heldout
    places = np.flatnonzero(unseen.targets.cpu().numpy() == label)
    if not len(places):
        got = f"no unseen record of class {label}"
        raise BadInput("decoys", got=got, expected="at least one", do="use more test records")
    drawn = Rng(case.seed).child("decoys", label).numpy().permutation(places)[:most]
    records = unseen.take(np.sort(drawn)).batch().inputs[case.task.attacked_input].float().cpu()
    return _tabular.scaled(case, records) if records.dim() == 2 else records
