"""What the attacks share that try to bring forgotten records' answers back: the budget, the records, scores and measures."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.search import Found, Loss
from palimpsest.case import Case
from palimpsest.catalog import name_of, setting
from palimpsest.errors import ContractError
from palimpsest.measures.divergence import euclidean
from palimpsest.measures.intervals import mean, share
from palimpsest.measures.membership import svc_called_member
from palimpsest.rng import Rng
from palimpsest.task import predict
from palimpsest.threat import ThreatModel, View
from palimpsest.types import Array, Batch, Examples, Measure, Scores

AUDITOR = ThreatModel(
    roles=("auditor",),
    goals=("G3",),
    knowledge="K1",
    phases=("P3",),
    sees="weights",
    models="both",
    knows=("forget_set",),
)
"""Who holds both models and the forgotten records."""


@dataclass(frozen=True)
class Recovery(Attack, partial=True):
    """Base of attacks that change forgotten records within a budget until the unlearned model answers as the original did.

    A member says in `perturb` how; which records, what the original answered, scores and measures are here. Its measures carry its
    own name: `uma.forget_accuracy`, `square.forget_accuracy`.
    """

    bias_matched = True

    epsilon: tuple[float, ...] = setting(
        (8 / 255, 16 / 255),
        "radii of the L∞ ball, as shares of the domain's width; 1 is unbounded",
        source="UMA paper, 5.1",
        above=0,
        most=1,
    )
    records: int | None = setting(
        500, "at most this many forgotten records; none for all", source="ours; paper: all", least=1
    )
    references: int = setting(
        1000, "at most this many member and non-member records, each", source="ours; paper: all", least=1
    )
    batch_size: int = setting(128, "records worked on at once", source="ours", least=1)

    @abstractmethod
    def perturb(self, view: View, inputs: Tensor, wanted: Tensor, rng: Rng) -> Found:
        """The search, for every ε: rows are (ε, record), ε the slower axis.

        inputs: (n, …) in the domain. wanted: the original's posteriors, (n, k).
        """

    def queue(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Every record at every ε, ε the slower axis: inputs (ε·n, …) and radii (ε·n,)."""
        copies = len(self.epsilon)
        radii = torch.tensor(self.epsilon, dtype=torch.float64, device=inputs.device)
        return inputs.repeat(copies, *([1] * (inputs.dim() - 1))), radii.repeat_interleave(len(inputs))

    def observe(self, view: View, *, rng: Rng) -> Guess:
        """Attacked inputs, shape (n, number of ε, *shape), with ids; n is at most `records`."""
        forget = some(view.know("forget_set"), self.records, rng.child("records"))
        inputs = forget.batch().inputs[view.task.attacked_input]
        parts = torch.split(inputs, self.batch_size)
        wanted = torch.cat([view.before.posterior(_alone(view, part)) for part in parts])
        found = self.perturb(view, inputs, wanted, rng.child("search"))
        attacked = found.inputs.view(len(self.epsilon), len(forget), *inputs.shape[1:]).transpose(0, 1)
        return Guess(
            {"attacked": attacked.contiguous()},
            {"ids": forget.ids.tolist(), "epsilon": list(self.epsilon), "steps": found.steps.tolist()},
            queries=view.queries,
            gradients=found.evaluations,
        )

    def score(self, guess: Guess, case: Case) -> Scores:
        """Scores per record. `group`: 0 forgotten and attacked, 1 member (retain) and 2 non-member (test) for reference.

        label, clean_prediction, original_prediction: classes; attacked_prediction: (n, ε). clean_confidence and
        attacked_confidence (n, ε): the subject's posterior of the true class. clean_distance and attacked distance `distance`
        (n, ε): ‖f_u(x') − f(x)‖₂ of posteriors, in [0, √2]. References are not attacked: their attacked values are the clean ones.
        Raises ContractError where an attacked input leaves its ball or the domain.
        """
        forget = case.forget.only(guess.info["ids"])
        if forget.ids.tolist() != guess.info["ids"]:
            raise ContractError(
                f"{name_of(self)}: got a guess about other records, expected ids of the forget set, in its order"
            )
        attacked, radii = guess.tensors["attacked"], guess.info["epsilon"]
        verify_budget(name_of(self), forget.batch().inputs[case.task.attacked_input], attacked, radii, case.task.domain)
        stream = case.rng.child(name_of(self), "references")
        members = some(case.retain, self.references, stream.child("members"))
        nonmembers = some(case.test, self.references, stream.child("nonmembers"))
        parts = [_clean(case, part, len(radii)) for part in (forget, members, nonmembers)]
        before = predict(case.task, case.original.model, forget)
        for index in range(len(radii)):
            after = _posterior(case, forget, attacked[:, index])
            parts[0]["attacked_prediction"][:, index] = after.argmax(1)
            parts[0]["attacked_confidence"][:, index] = own(after, forget)
            parts[0]["distance"][:, index] = euclidean(after, before).numpy()
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        arrays["group"] = np.repeat(np.arange(3), [len(forget), len(members), len(nonmembers)])
        ids = np.concatenate([forget.ids, members.ids, nonmembers.ids])
        return Scores("record", ids, arrays, {"epsilon": tuple(radii)})

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """forget_accuracy and mia_member_rate at ε 0 (unattacked) and each ε; minimum_distance at each ε; after the attack's name.

        The distance is Definition 4's, per record: the least distance from the original's posterior among the record itself and the
        points that the attack returned for radii up to ε. It is an upper bound on the true minimum, and its mean one on the mean.
        The definition asks for a distance above ε₁ on every record: the scores hold each one's.
        """
        radii = scores.axes["epsilon"]
        forgotten, group = scores.where(scores["group"] == 0), scores["group"]
        truth = forgotten["label"][:, None]
        predictions = np.column_stack([forgotten["clean_prediction"], forgotten["attacked_prediction"]])
        confidences = np.column_stack([forgotten["clean_confidence"], forgotten["attacked_confidence"]])
        distances = np.column_stack([forgotten["clean_distance"], forgotten["distance"]])
        clean = scores["clean_confidence"]
        called = np.zeros(confidences.shape, dtype=bool)
        if (group == 1).any() and (group == 2).any():
            called = svc_called_member(clean[group == 1], clean[group == 2], confidences.ravel()).reshape(called.shape)
        found, own_name = [], name_of(self)
        for index, radius in enumerate((0.0, *radii)):
            at = {"epsilon": radius}
            found.append(share(f"{own_name}.forget_accuracy", predictions[:, index] == truth[:, 0], at=at))
            found.append(share(f"{own_name}.mia_member_rate", called[:, index], at=at))
        for radius in radii:
            within = [0, *(1 + index for index, other in enumerate(radii) if other <= radius)]
            found.append(mean(f"{own_name}.minimum_distance", distances[:, within].min(1), at={"epsilon": radius}))
        return tuple(found)


def kl(answer: Float[Tensor, "n k"], wanted: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """KL(wanted ‖ softmax(answer)) in nats."""
    return F.kl_div(F.log_softmax(answer, 1), wanted, reduction="none").sum(1)


def mse(answer: Float[Tensor, "n k"], wanted: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Squared distance of the posteriors. Its gradient vanishes where the subject is certain of another class."""
    return (F.softmax(answer, 1) - wanted).square().sum(1)


def bce(answer: Float[Tensor, "n k"], wanted: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Binary cross-entropy summed over classes, less its least possible value, so that equal posteriors have 0."""
    least = F.binary_cross_entropy(wanted, wanted, reduction="none").sum(1)
    return F.binary_cross_entropy(F.softmax(answer, 1), wanted, reduction="none").sum(1) - least


LOSSES: dict[str, Loss] = {"kl": kl, "mse": mse, "bce": bce}


def recovered(answer: Tensor, wanted: Tensor, loss: Tensor) -> Tensor:
    """Whether the class that the original named is back."""
    return answer.argmax(1) == wanted.argmax(1)


def some(examples: Examples, size: int | None, rng: Rng) -> Examples:
    """At most `size` records drawn without replacement, in their own order."""
    if size is None or len(examples) <= size:
        return examples
    return examples.take(np.sort(rng.numpy().permutation(len(examples))[:size]))


def verify_budget(
    who: str, clean: Tensor, attacked: Tensor, radii: tuple[float, ...] | list[float], domain: tuple[Tensor, Tensor]
) -> None:
    """Raises ContractError unless |x' − x| ≤ ε (high − low) and low ≤ x' ≤ high hold exactly, on the values as stored."""
    low, high = (edge.to(clean) for edge in domain)
    if not bool(((attacked >= low) & (attacked <= high)).all()):
        raise ContractError(f"{who}: got an attacked input outside the domain, expected none")
    for index, radius in enumerate(radii):
        moved = (attacked[:, index].double() - clean.double()).abs()
        if not bool((moved <= radius * (high.double() - low.double())).all()):
            raise ContractError(f"{who}: got a perturbation of {float(moved.max())}, expected at most ε = {radius}")


def own(posterior: Tensor, examples: Examples) -> Array:
    """Posterior of each record's true class."""
    values: Array = posterior.gather(1, examples.targets.cpu()[:, None]).flatten().numpy()
    return values


def _posterior(case: Case, examples: Examples, inputs: Tensor) -> Tensor:
    """The subject's posteriors on changed inputs, on the CPU."""
    base = {**examples.inputs, case.task.attacked_input: inputs}
    changed = Examples.of(base, examples.targets, examples.ids.tolist())
    return predict(case.task, case.subject.model, changed)


def _clean(case: Case, part: Examples, copies: int) -> dict[str, Array]:
    """Columns of records that are not attacked; the attacked ones are filled with the clean values."""
    after = predict(case.task, case.subject.model, part)
    before = predict(case.task, case.original.model, part)
    columns = {
        "label": part.targets.cpu().numpy(),
        "original_prediction": before.argmax(1).numpy(),
        "clean_prediction": after.argmax(1).numpy(),
        "clean_confidence": own(after, part),
        "clean_distance": euclidean(after, before).numpy(),
    }
    for name, source in (
        ("attacked_prediction", "clean_prediction"),
        ("attacked_confidence", "clean_confidence"),
        ("distance", "clean_distance"),
    ):
        columns[name] = np.repeat(columns[source][:, None], copies, axis=1)
    return columns


def _alone(view: View, inputs: Tensor) -> Batch:
    """A batch of these inputs; what models answer does not depend on targets."""
    return Batch({view.task.attacked_input: inputs}, torch.zeros(len(inputs), dtype=torch.long, device=inputs.device))
