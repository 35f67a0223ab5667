"""Does a recovered sample identify the deleted record? Ranks among decoys, matching, and exactly recovered columns.

An inversion attack always returns something, and what it returns may look like the deleted record because all records of the
class look alike. Decoys tell the two apart: records of the same class that no model was trained on. A distance takes pairs,
(m, …) and (m, …) → (m,), the recovered samples first; `squared` and `mean_colour` are here, a perceptual one is in
`measures/perceptual.py`. Sums are taken in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from palimpsest.errors import BadInput

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of pairs: (m, …) and (m, …) → (m,), any unit; smaller is nearer."""
TOGETHER = 256
"""Pairs handed to a distance at once, so that memory does not grow with the number of decoys."""
SLACK = 1e-6
"""How far a true value may lie from its level, as noise of a short float format."""


@torch.no_grad()
def normalised_rank(recovered: Tensor, truth: Tensor, decoys: Tensor, distance: Distance) -> Float[Tensor, " n"]:
    """The share of its decoys that lie farther from the recovered sample than the true record does; (n,), float64, on the CPU.

    recovered, truth: shape (n, …). decoys: (n, d, …), each row its own; rows that share theirs may be an expanded view, of which
    no copy is made. In [0, 1], a multiple of 1/(2d). 1: the true record is the nearest of all; 0: the farthest. A decoy at the
    same distance counts half, so that a distance that is constant has rank 0.5.

    The null is exact: where, given the recovered sample and the distance, the true record is exchangeable with its decoys (any
    of the d + 1 might as well have been the deleted one), the expected rank is 0.5 for each distance and each d, and without
    ties the rank is uniform on 0, 1/d, …, 1, so that rank 1 has probability 1/(d + 1).

    Not guaranteed: that a rank above 0.5 comes from the deletion. A record that the original model, or the network of a
    perceptual distance, was trained on is not exchangeable with records that it was not trained on, and a decoy of another
    class is told apart by its class; compare with a placebo (the same measure where other records were deleted) and with
    `mean_colour`, which needs no image. Rows that share decoys or a model have dependent ranks: their mean keeps its
    expectation, not the spread of independent draws. Ties are equal floats; a distance whose rounding depends on the batch
    may break a tie of duplicates either way.

    Raises BadInput for shapes that do not fit, no record, no decoy, and a distance that does not give m finite numbers.
    """
    n = _records(recovered, truth)
    if decoys.ndim != recovered.ndim + 1 or len(decoys) != n or decoys.shape[2:] != recovered.shape[1:]:
        got, wanted = f"shape {tuple(decoys.shape)}", f"({n}, decoys, {', '.join(map(str, recovered.shape[1:]))})"
        raise BadInput("decoys", got=got, expected=wanted, do="give each recovered sample its own row of decoys")
    d = decoys.shape[1]
    if d == 0:
        raise BadInput("decoys", got="none", expected="at least one of each record")
    near = _measured(distance, n, lambda at: (recovered[at], truth[at]))[:, None]
    far = _measured(distance, n * d, lambda at: (recovered[at // d], decoys[at // d, at % d])).view(n, d)
    return ((far > near).double() + (far == near).double() / 2).mean(1)


def squared(one: Tensor, other: Tensor) -> Float[Tensor, " m"]:
    """Mean of (one − other)² over all values of a record; shapes (m, …), result (m,), float64.

    In squared units of the records. It is the MSE proper; the inversion paper prints its root under that name.
    Raises BadInput for shapes that differ, no record, records without values and values that are not floats.
    """
    _floats(one, other)
    return (one.double() - other.double()).square().flatten(1).mean(1)


def mean_colour(one: Tensor, other: Tensor) -> Float[Tensor, " m"]:
    """Squared distance of mean colours, Σ over channels of (mean one − mean other)²; images (m, c, h, w) → (m,), float64.

    Of other records, shapes (m, f) and (m, …), the squared difference of their means over all features. It sees nothing of what
    is in a picture: the rank that it reaches is what recovering one colour is worth, the baseline of any other distance.
    Raises BadInput as `squared` does.
    """
    _floats(one, other)
    values = (images.double().flatten(2 if images.ndim == 4 else 1).mean(-1) for images in (one, other))
    first, second = (means.reshape(len(one), -1) for means in values)
    return (first - second).square().sum(1)


@torch.no_grad()
def assign(recovered: Tensor, truth: Tensor, distance: Distance) -> Int[Tensor, " k"]:
    """The order in which recovered samples match the true records best: recovered[order[i]] belongs to truth[i]; (k,), int64.

    recovered, truth: shape (k, …). It minimises the sum of distances over all one-to-one matchings (Hungarian method, Kuhn 1955;
    `scipy.optimize.linear_sum_assignment`), and takes k² distances. For attacks on deletions of several records, whose samples
    come in no order. On the CPU.

    Not guaranteed: that a match means anything. The best matching of noise is nearer than a random one and the more so the
    larger k is, so a control has to be matched in the same way; the null of `normalised_rank` does not hold after matching.
    Of several best matchings it gives one.

    Raises BadInput for differing sizes or shapes, nothing given, and a distance that does not give finite numbers.
    """
    k = _records(recovered, truth)
    costs = _measured(distance, k * k, lambda at: (recovered[at % k], truth[at // k])).view(k, k)
    return torch.from_numpy(linear_sum_assignment(costs.numpy())[1]).long()


def exactly_recovered(recovered: Tensor, truth: Tensor, columns: Mapping[int, Tensor]) -> Float[Tensor, " n"]:
    """The share of the named columns whose value is exactly recovered, per tabular record; (n,), float64, in [0, 1].

    recovered, truth: shape (n, f), floats in the units of the levels (in [0, 1] after min-max scaling). columns: index of a
    categorical, one-hot or level column, 0 … f − 1 → its admissible levels, shape (levels,). A value is recovered where the
    admissible level nearest to it is the true one. A value midway between the true level and another is not, so that a recovery
    that never left 0.5 scores nothing on columns of 0 and 1.

    Not guaranteed: that a high share is a finding. Frequent values are guessed without any leak: of a category that is one-hot
    over k columns, a record of zeros has k − 1 right. Report it beside the same share for a placebo or for the most
    frequent value of each column.

    Raises BadInput for records that are not (n, f) floats of equal shape, no column or one that is not there, fewer than two
    levels or levels that are not finite, a true value more than 1e-6 from each level, and recovered values that are not finite.
    """
    _floats(recovered, truth)
    if recovered.ndim != 2:
        raise BadInput("tabular records", got=f"shape {tuple(recovered.shape)}", expected="(n, f)")
    if not columns:
        raise BadInput("columns", got="none", expected="at least one column and its levels")
    hits = []
    for column, admissible in columns.items():
        name = f"column {column}"
        if not 0 <= column < recovered.shape[1]:
            raise BadInput("columns", got=column, expected=f"an index of 0 to {recovered.shape[1] - 1}")
        levels = torch.unique(admissible.detach().to(recovered.device).double())
        if admissible.ndim != 1 or len(levels) < 2 or not bool(levels.isfinite().all()):
            got = f"shape {tuple(admissible.shape)}, {len(levels)} different values"
            do = "leave out a column that is constant"
            raise BadInput(f"levels of {name}", got=got, expected="(levels,), two or more finite ones", do=do)
        drawn, true = (_finite(name, records[:, column].detach().double()) for records in (recovered, truth))
        off, index = (true[:, None] - levels).abs().min(1)
        if float(off.max()) > SLACK:
            got = f"a true value of {float(true[off.argmax()]):.6g}"
            raise BadInput(name, got=got, expected="one of its levels", do="give all levels in the records' units")
        gaps = (drawn[:, None] - levels).abs()
        chosen = torch.arange(len(levels), device=levels.device) == index[:, None]
        others = gaps.masked_fill(chosen, torch.inf).min(1).values
        hits.append(gaps[chosen] < others)
    return torch.stack(hits, 1).double().mean(1)


def _measured(distance: Distance, count: int, pairs: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Distances of the pairs 0 … count − 1, a few at once; (count,), float64, on the CPU."""
    found = []
    for start in range(0, count, TOGETHER):
        at = torch.arange(start, min(start + TOGETHER, count))
        values = distance(*pairs(at))
        if values.shape != at.shape:
            got = f"shape {tuple(values.shape)} for {len(at)} pairs"
            raise BadInput("distance", got=got, expected=f"one number a pair, shape ({len(at)},)")
        found.append(_finite("distance", values.detach().double().cpu()))
    return torch.cat(found)


def _records(recovered: Tensor, truth: Tensor) -> int:
    """How many there are, at least one, of equal shapes."""
    if recovered.shape != truth.shape:
        got = f"shapes {tuple(recovered.shape)} and {tuple(truth.shape)}"
        raise BadInput("recovered and true records", got=got, expected="equal ones, one recovered sample a record")
    if recovered.ndim < 2 or recovered.numel() == 0:
        got = f"shape {tuple(recovered.shape)}"
        raise BadInput("recovered and true records", got=got, expected="(n, …) with at least one of each")
    return len(recovered)


def _floats(one: Tensor, other: Tensor) -> None:
    _records(one, other)
    for records in (one, other):
        if not records.is_floating_point():
            raise BadInput("records", got=records.dtype, expected="floats", do="divide uint8 images by 255")


def _finite(name: str, values: Tensor) -> Tensor:
    if not bool(values.isfinite().all()):
        got = f"{int((~values.isfinite()).sum())} of {len(values)} values not finite"
        raise BadInput(name, got=got, expected="finite numbers", do="look at the recovered samples")
    return values
