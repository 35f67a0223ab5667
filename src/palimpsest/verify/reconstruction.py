"""How well a model of images gives back what was hidden, on what was kept, on what was forgotten, and on test records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from palimpsest import reconstruction
from palimpsest.case import GROUPS, Case
from palimpsest.catalog import name_of, setting
from palimpsest.measures.image import psnr, ssim
from palimpsest.measures.intervals import mean, statistic
from palimpsest.measures.likeness import likeness, recovery
from palimpsest.rng import Rng
from palimpsest.task import predict
from palimpsest.types import Array, Examples, Measure, Scores
from palimpsest.verify.base import Verifier

CEILING = 60.0
"""dB at which a PSNR is cut, as identical images have an infinite one."""


@dataclass(frozen=True)
class Reconstruction(Verifier):
    """Per group of records, over hidden pixels: quality (likeness to the true image), resemblance (to what the original drew), PSNR
    and SSIM against the truth. Likeness is 1 − L1 / L1 of a constant, cut to [0, 1].

    `test_quality` stands where a classifier has its test accuracy. `forget_recovery_rate` is the forget set's resemblance as a
    share of the retain set's: two models trained apart draw no record alike, and only what goes beyond that is forgetting. A
    low one is no proof of forgetting: it says what the model draws when it is asked plainly.
    """

    about = "likeness to the true image and to the original's, on retain, forget and test records"
    tasks = (reconstruction.Reconstruction.name,)

    records: int = setting(1000, "at most this many records of each group", source="ours", least=2)

    def verify(self, case: Case) -> Scores:
        """Scores per record: `group` (0 retain, 1 forget, 2 test, 3 held out), `quality`, `resemblance`, `psnr` (dB, at most
        60) and `ssim`."""
        parts = [(index, self._some(case.group(name), case.seed, name)) for index, name in enumerate(GROUPS)]
        parts = [(index, part) for index, part in parts if len(part)]
        scored = [self._columns(case, part) for _, part in parts]
        arrays = {key: np.concatenate([column[key] for column in scored]) for key in scored[0]}
        arrays["group"] = np.repeat([index for index, _ in parts], [len(part) for _, part in parts])
        return Scores("record", np.concatenate([part.ids for _, part in parts]), arrays)

    def _some(self, part: Examples, seed: int, name: str) -> Examples:
        order = Rng(seed).child("reconstruction", name).numpy().permutation(len(part))
        return part.take(np.sort(order[: self.records]))

    def _columns(self, case: Case, part: Examples, size: int = 64) -> dict[str, Array]:
        task = reconstruction.as_reconstruction(case.task, name_of(self))
        found: dict[str, list[torch.Tensor]] = {"quality": [], "resemblance": [], "psnr": [], "ssim": []}
        for start in range(0, len(part), size):
            few = part.take(list(range(start, min(start + size, len(part)))))
            batch = few.batch()
            truth, where, fill = (
                value.cpu()
                for value in (batch.inputs[task.attacked_input], task.hidden_pixels(batch), task.fill(batch))
            )
            drawn, before = (predict(task, trained.model, few) for trained in (case.subject, case.original))
            found["quality"].append(likeness(drawn, truth, fill, where))
            found["resemblance"].append(likeness(drawn, before, fill, where))
            found["psnr"].append(psnr(drawn, truth, where, ceiling=CEILING))
            found["ssim"].append(ssim(drawn, truth, where))
        return {name: torch.cat(values).numpy() for name, values in found.items()}

    def measure(self, scores: Scores) -> tuple[Measure, ...]:
        group = scores["group"]
        found = [
            mean(f"{name}_{what}", scores[what][group == index], stream=name)
            for what in ("quality", "resemblance", "psnr", "ssim")
            for index, name in enumerate(GROUPS)
            if (group == index).any()
        ]
        forget, retain = (scores["resemblance"][group == index] for index in (1, 0))
        if len(forget) and len(retain):
            found.append(statistic("forget_recovery_rate", recovery, forget, retain))
        return tuple(found)
