"""The Unlearning Mapping Attack on models of images: inputs from which an unlearned model draws what the original drew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from palimpsest.attack.base import Attack, Guess
from palimpsest.attack.residual._drawn import Compared, Hidden, answers, measures, squared
from palimpsest.attack.residual.base import AUDITOR, some, verify_budget
from palimpsest.attack.search import search
from palimpsest.case import Case
from palimpsest.catalog import setting
from palimpsest.errors import ContractError
from palimpsest.learn._extractor import Eyes, seen
from palimpsest.reconstruction import MASK, Reconstruction, as_reconstruction
from palimpsest.rng import Rng
from palimpsest.threat import View
from palimpsest.types import Batch, Examples, Measure, Scores

PICTURED = 4, 2
"""Forgotten and retained records whose images are kept for the report."""


@dataclass(frozen=True)
class UmaGeneration(Eyes, Attack):
    """Xuan and Li, "Verifying Robust Unlearning", Algorithm 1, for models that give back masked images (5.1 and A.3).

    For each forgotten record x, and as many that were retained, signed projected gradient descent on the squared difference of
    f_u(x') and f(x) over hidden pixels, with ‖x' − x‖∞ ≤ ε in the domain; ε = 1 is the whole domain, the paper's "unbound".
    Masks stay as they are. In the paper's words I₀ is the record, I₁ = f(x), I₂ = f_u(x), I₃ = f_u(x'). The auditor holds both
    models and all records.

    Pictures are told by the drawn pixels among the true visible ones: what an adversary who has the masked image would paste
    together. Deviations: of all iterates the one with the lowest loss is kept. FID and IS take a classifier trained on the
    same data, or your own, in the place of the Inception network, and are named after it; compare them with each other and
    with no other publication's. The paper prints no steps and no step size here; those are ours.

    A raw number proves nothing: an input that may be anything makes any decoder draw much, an untrained one too, and a retrained
    model draws classes that it never saw. Read it beside and minus both. That the attack fails does not prove forgetting.
    """

    revision = 2  # images of retained records are kept beside forgotten ones
    threat = replace(AUDITOR, knows=("forget_set", "members"))
    paper = "UMA paper, sections 4, 5.1 and A.3; Tables 3 and 7"
    about = "perturbs records until an unlearned model draws what the original drew"
    primary = "uma_generation.forget_recovery_rate"
    tasks = (Reconstruction.name,)
    untrained = True

    epsilon: tuple[float, ...] = setting(
        (8 / 255, 1.0),
        "radii of the L∞ ball, as shares of the domain's width; 1 is unbounded",
        source="paper, Table 3",
        above=0,
        most=1,
    )
    steps: int = setting(100, "gradient steps", source="ours; paper, A.1 for classifiers", least=1)
    step_size: float = setting(
        1 / 255, "step within a ball, as a share of the domain's width", source="paper, A.1", above=0
    )
    unbounded_step: float = setting(
        4 / 255, "step where ε is 1, as a share of the domain's width", source="ours", above=0
    )
    step_rule: Literal["constant", "decaying", "cosine", "automatic"] = setting(
        "constant",
        "constant; decaying: from half the radius, halved down to the step; cosine: from half the radius to 0; automatic: APGD's, "
        "which goes by what each record gains",
        source="paper, Algorithm 1; Croce & Hein 2020; others: ours",
    )
    start: Literal["random", "record"] = setting(
        "random", "random: a uniform draw from the ball; record: the record itself", source="paper, Algorithm 1"
    )
    records: int | None = setting(
        500, "at most this many forgotten records, and as many retained; none: all", source="ours", least=2
    )
    batch_size: int = setting(128, "records worked on at once", source="ours", least=1)

    def observe(self, view: View, *, rng: Rng) -> Guess:
        """Attacked inputs, shape (n, number of ε, c, h, w), forgotten records first, and the images I₀, Iₘ, I₁, I₂ and I₃ (one
        per ε) of the first few of either, shape (m, 4 + number of ε, c, h, w)."""
        task = as_reconstruction(view.task, "uma_generation")
        forget = some(view.know("forget_set"), self.records, rng.child("records"))
        retain = some(view.know("members"), len(forget), rng.child("retained"))
        batch = Examples.joined([forget, retain]).batch()
        before, after = view.before.weights(), view.after.weights()
        image, mask = batch.inputs[task.attacked_input], batch.inputs[MASK]
        wanted = answers(task, before, batch) * task.hidden_pixels(batch)
        hidden, radii = Hidden(after, task), np.asarray(self.epsilon)
        attacked = image[:, None].repeat(1, len(radii), 1, 1, 1)
        evaluations = 0
        for step, chosen in ((self.step_size, radii < 1), (self.unbounded_step, radii >= 1)):
            copies = int(chosen.sum())
            if not copies:
                continue
            found = search(
                hidden,
                image.repeat(copies, 1, 1, 1),
                wanted.repeat(copies, 1, 1, 1),
                squared,
                low=task.domain[0],
                high=task.domain[1],
                epsilon=torch.from_numpy(radii[chosen]).to(image.device).repeat_interleave(len(image)),
                step_size=step,
                steps=self.steps,
                start=self.start,
                step_rule=self.step_rule,
                batch_size=self.batch_size,
                sides=mask.repeat(copies, 1),
                rng=rng.child("search", "bounded" if step is self.step_size else "unbounded"),
            )
            places = torch.from_numpy(np.flatnonzero(chosen)).to(image.device)
            attacked[:, places] = found.inputs.view(copies, len(image), *task.shape).transpose(0, 1)
            evaluations += found.evaluations
        return Guess(
            {"attacked": attacked, "pictures": _pictures(task, before, after, batch, attacked, _pictured(len(forget)))},
            {
                "forget": forget.ids.tolist(),
                "retain": retain.ids.tolist(),
                "epsilon": list(self.epsilon),
            },
            gradients=evaluations,
        )

    def score(self, guess: Guess, case: Case) -> Scores:
        """Scores per record. `group`: 0 forgotten, 1 retained; `label`: class; `pictured`: 1 where the guess has its images.
        Columns (n, 1 + number of ε), the first for I₂, the others for I₃: `l1` to I₁ over hidden pixels and `whole_l1` over all
        that the model gave back, in levels; `resemblance` to I₁ in [0, 1]; `psnr` (dB, at most 60) and `ssim` to I₀ over hidden
        pixels. `features` and `posteriors` by the extractor, (n, 2 + number of ε, d), the first of I₀.

        Raises ContractError where an attacked input leaves its ball or the domain.
        """
        task = as_reconstruction(case.task, "uma_generation")
        forget, retain = case.forget.only(guess.info["forget"]), case.retain.only(guess.info["retain"])
        both = Examples.joined([forget, retain])
        if both.ids.tolist() != [*guess.info["forget"], *guess.info["retain"]]:
            raise ContractError("uma_generation: got a guess about other records, expected ids in the sets' order")
        batch, attacked, radii = both.batch(), guess.tensors["attacked"], guess.info["epsilon"]
        verify_budget("uma_generation", batch.inputs[task.attacked_input], attacked, radii, task.domain)
        truth, before = batch.inputs[task.attacked_input], answers(task, case.original.model, batch)
        known = Compared(*(value.cpu() for value in (truth, task.hidden_pixels(batch), task.fill(batch), before)))
        asked = [batch, *(_with(task, batch, attacked[:, place]) for place in range(len(radii)))]
        drawn = [answers(task, case.subject.model, one).cpu() for one in asked]
        columns = [known.columns(answer) for answer in drawn]
        arrays = {name: np.stack([column[name] for column in columns], 1) for name in columns[0]}
        name = self.eyes.name
        eye = case.extract(self.eyes, case.split)
        looks = [seen(eye, image, name) for image in (known.truth, *(known.pasted(answer) for answer in drawn))]
        arrays["features"] = torch.stack([features for features, _ in looks], 1).numpy()
        arrays["posteriors"] = torch.stack([posteriors for _, posteriors in looks], 1).numpy()
        arrays["group"] = np.repeat([0, 1], [len(forget), len(retain)])
        arrays["label"] = both.targets.cpu().numpy()
        arrays["pictured"] = np.isin(np.arange(len(both)), _pictured(len(forget))).astype(np.int64)
        return Scores("record", both.ids, arrays, {"epsilon": tuple(radii)})

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        """At ε 0 (unattacked, I₂) and each ε (I₃), for `forget` and `retain`: `…_l1`, `…_whole_l1`, `…_psnr`, `…_ssim`,
        `…_resemblance` (means), `…_fid_<extractor>` against the same records' I₀ and `…_is_<extractor>`; at each ε
        `…_l1_ratio`, mean L1(I₂, I₁) over mean L1(I₃, I₁). `forget_recovery_rate`: the forget set's resemblance as a share of
        the retain set's."""
        return tuple(measures(scores, "uma_generation", self.eyes.short))


def _pictured(forget: int) -> list[int]:
    """Places of the records whose images are kept, where as many were retained as forgotten."""
    return [
        first + place for first, most in zip((0, forget), PICTURED, strict=True) for place in range(min(most, forget))
    ]


def _pictures(
    task: Reconstruction, before: nn.Module, after: nn.Module, batch: Batch, attacked: Tensor, few: list[int]
) -> Tensor:
    shown = Batch({name: values[few] for name, values in batch.inputs.items()}, batch.targets[few])
    truth, where = shown.inputs[task.attacked_input], task.hidden_pixels(shown)
    rows = [truth, truth.masked_fill(where, 0.5), answers(task, before, shown), answers(task, after, shown)]
    for place in range(attacked.shape[1]):
        drawn = answers(task, after, _with(task, shown, attacked[few, place]))
        rows.append(torch.where(where, drawn, truth))
    return torch.stack(rows, 1)


def _with(task: Reconstruction, batch: Batch, inputs: Tensor) -> Batch:
    return Batch({**batch.inputs, task.attacked_input: inputs}, batch.targets)
