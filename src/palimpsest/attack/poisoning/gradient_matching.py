"""Gradient matching (Witches' Brew): records changed invisibly, so that training on them makes one other record be misread."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.poisoning._craft import Brew, brew, direction
from palimpsest.attack.poisoning.base import CONTRIBUTOR, contents
from palimpsest.case import Case
from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.measures.intervals import mean, share
from palimpsest.rng import Rng
from palimpsest.task import Classification, as_classification, evaluating
from palimpsest.threat import Submission, TrainingView
from palimpsest.types import Batch, Examples, Measure, Scores

BREWER = replace(CONTRIBUTOR, knowledge="K2", knows=("others", "unseen", "recipe", "architecture"))
"""A contributor who knows the architecture, the recipe and records of others, and trains models of its own; not the victim's."""


@dataclass(frozen=True)
class GradientMatching(Attack):
    """Witches' Brew (Geiping et al. 2021), the poisoning paper's targeted attack: clean labels, small changes.

    The adversary's own records are of one class, the intended one; it asks for all of them to be forgotten. It trains `ensemble`
    models of its own, and changes its records within ε so that the gradient of their loss points where that of the target under the
    intended class does: 1 − cos(Σ ∇ℓ(x_p + δ_p, y_p), Σ ∇ℓ(x_t, y_adv)), by Adam on the gradient's signs, from several starts, of
    which the lowest loss counts. Training on them then moves a model as training on the mislabelled target would. Images that are
    stored as bytes are handed in as bytes.

    Targets are drawn at random among the unseen records of other classes that `checked` models, trained to the end on honest
    records, all read rightly. Deviation: these are models of the adversary's own, among them those of the ensemble that were
    trained to the end, as it cannot know the victim's; a clean model of the audit may still misread a target, and stands beside for
    that.

    Success is whether a model answers the target with the intended class; one target is one number, so it takes many seeds. That
    the target is read rightly does not prove that nothing is left of the records.
    """

    threat = BREWER
    paper = "Geiping et al. 2021; poisoning paper, section 3"
    about = "hands in invisibly changed records of one class, so that a chosen other record is taken for it"
    primary = "gradient_matching.confidence"
    owns = "class=3:0.9"
    revision = 2

    epsilon: float = setting(
        16 / 255, "greatest change of a value, as a share of its range", source="Geiping et al. 2021", above=0
    )
    targets: int = setting(1, "records to be misread", source="Geiping et al. 2021", least=1)
    checked: int = setting(
        3, "models trained to the end on honest records, which must all read a target rightly", source="ours", least=1
    )
    ensemble: int = setting(1, "models of the adversary's own", source="Geiping et al. 2021: 1", least=1)
    stages: tuple[float, ...] = setting(
        (1.0,),
        "shares of the training after which those models are taken, in turn",
        source="Geiping et al. 2021: at the end; early ones are ours",
        above=0,
        most=1,
    )
    restarts: int = setting(8, "starts; the lowest loss counts", source="Geiping et al. 2021", least=1)
    iterations: int = setting(250, "steps", source="Geiping et al. 2021", least=1)
    step: float = setting(
        0.1, "highest step, in units of ε", source="ours; the public code has about 0.3 ε on CIFAR-10", above=0
    )
    augment: Literal["none", "shift", "flip_shift"] = setting(
        "none",
        "changes of the records in each step: moved by up to an eighth, and mirrored",
        source="Geiping et al. 2021: both",
    )
    together: int = setting(512, "records whose gradient is taken at once", source="Geiping et al. 2021", least=1)

    def prepare(self, view: TrainingView, *, rng: Rng) -> Submission:
        task, own = as_classification(view.task, name_of(self)), view.own
        intended = torch.unique(own.targets.cpu())
        if len(intended) != 1:
            got, do = f"records of {len(intended)} classes", "forget a share of one, as class=3:0.15"
            raise BadInput(name_of(self), got=got, expected="own records of one class, the intended one", do=do)
        honest = Examples.joined([view.know("others"), own])
        shares = [self.stages[place % len(self.stages)] for place in range(self.ensemble)]
        models = [view.fit(honest, rng.child("surrogate", place), share) for place, share in enumerate(shares)]
        whole = [model for model, share in zip(models, shares, strict=True) if share == 1][: self.checked]
        whole += [view.fit(honest, rng.child("checked", place)) for place in range(self.checked - len(whole))]
        chosen = self._chosen(whole, task, view.know("unseen"), int(intended), rng)
        batch, name = own.batch(), task.attacked_input
        aims = [direction(model, task, chosen, intended.expand(len(chosen))) for model in models]
        how = Brew(self.epsilon, self.restarts, self.iterations, self.step, self.augment, self.together)
        found = brew(
            models, task, batch, aims, how, bytes_=own.inputs[name].dtype == torch.uint8, rng=rng.child("brew")
        )
        kept = {
            "targets": chosen.batch().inputs[name].float().cpu(),
            "true": chosen.targets.cpu(),
            "intended": intended.cpu(),
            "loss": found.loss.cpu(),
            "change": (found.inputs.cpu() - batch.inputs[name].float().cpu()).abs().amax().view(1),
            "margin": torch.stack([_margin(model, task, chosen) for model in whole]).cpu(),
        }
        inputs = contents(own) | {name: found.inputs.cpu()}
        return Submission(own.ids, inputs, batch.targets.cpu(), kept, found.gradients)

    def _chosen(
        self, models: list[nn.Module], task: Classification, unseen: Examples, intended: int, rng: Rng
    ) -> Examples:
        """Unseen records of other classes that all models read rightly, drawn at random."""
        right = torch.stack([_margin(model, task, unseen) > 0 for model in models]).all(0).cpu()
        able = (right & (unseen.targets.cpu() != intended)).nonzero().flatten()
        if len(able) < self.targets:
            got = f"{len(able)} unseen records of other classes that the adversary's models read rightly"
            raise BadInput(
                name_of(self), got=got, expected=f"at least {self.targets}", do="train longer, or ask for fewer"
            )
        order = torch.randperm(len(able), generator=rng.child("targets").torch())[: self.targets]
        return unseen.take(able[order])

    def score(self, guess: Guess, case: Case) -> Scores:
        """Per target: hit, whether it is answered with the intended class; true, with its own; confidence, the posterior of the
        intended class; lead, that minus the posterior of its own."""
        kept, model = case.submission.kept, case.subject.model
        device = next(model.parameters()).device
        with evaluating(model), torch.no_grad():
            batch = Batch({case.task.attacked_input: kept["targets"].to(device)}, kept["true"].to(device))
            posterior = as_classification(case.task, name_of(self)).posterior(model, batch).cpu().double()
        intended, true, answer = int(kept["intended"]), kept["true"], posterior.argmax(1)
        lead = posterior[:, intended] - posterior.gather(1, true[:, None])[:, 0]
        arrays = {"hit": (answer == intended).numpy(), "true": (answer == true).numpy(), "lead": lead.numpy()}
        arrays["confidence"] = posterior[:, intended].numpy()
        arrays["margin"] = kept["margin"].double().mean(0).numpy()
        arrays["least_margin"] = kept["margin"].double().amin(0).numpy()
        arrays["change"] = kept["change"].double().expand(len(true)).numpy()
        arrays["loss"] = kept["loss"].double().min().expand(len(true)).numpy()
        return Scores("target", torch.arange(len(true)).numpy().astype(str), arrays)

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """success_rate: share of targets answered with the intended class; true_rate: with their own; confidence and lead: means;
        surrogate_margin: by how much the checked models preferred the true class, of logits, mean over them; least_margin: the
        least of them; change: the greatest of any value that was trained on; matching_loss."""
        name = name_of(self)
        return (
            share(f"{name}.success_rate", scores["hit"]),
            share(f"{name}.true_rate", scores["true"]),
            mean(f"{name}.confidence", scores["confidence"]),
            mean(f"{name}.lead", scores["lead"]),
            mean(f"{name}.surrogate_margin", scores["margin"]),
            mean(f"{name}.least_margin", scores["least_margin"]),
            mean(f"{name}.change", scores["change"]),
            mean(f"{name}.matching_loss", scores["loss"]),
        )


@torch.no_grad()
def _margin(model: nn.Module, task: Classification, records: Examples) -> Tensor:
    """Logit of the true class minus the highest other one, (n,)."""
    found = []
    for batch in records.batches(256):
        logits = task.outputs(model, batch)
        true = logits.gather(1, batch.targets[:, None])
        rest = logits.scatter(1, batch.targets[:, None], -torch.inf)
        found.append(true[:, 0] - rest.amax(1))
    return torch.cat(found)
