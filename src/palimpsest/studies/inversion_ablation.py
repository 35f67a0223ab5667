"""Beyond the inversion paper: what each later improvement of gradient inversion adds to its attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._inversion import (
    COLUMNS,
    FEATURES,
    METHODS,
    PAPERS_FORM,
    RANK,
    SOFT,
    TWO_DISTANCES,
    at,
    features,
)
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

PAPER, ALL = "the paper's form", "softplus, layers alike, more total variation"
THIRD = f"{ALL}; a third of the steps"
FORMS: dict[str, dict[str, Any]] = {
    PAPER: {},
    "no total variation": {"total_variation": 0.0},
    "the gradient itself": {"sign": "none"},
    "soft signs": {"sign": "soft"},
    "cosine decay": {"schedule": "cosine"},
    "warm-up": {"warmup": 50},
    "batch-norm prior": {"norm_prior": 0.01},
    "softplus": {"sharpness": SOFT["sharpness"]},
    "weights alone, layers alike": {"compared": SOFT["compared"]},
    "more total variation": {"total_variation": SOFT["total_variation"]},
    ALL: SOFT,
    THIRD: SOFT,
}
"""Changes of the attack's settings: one at a time, but for the last two."""
STRONGER = "two_update_inversion"
_COLUMNS = {**COLUMNS, "matching loss": at("matching_loss")}


def _row(form: str, target: str = "unlearned") -> Where:
    return Where(form, target, METHODS["approximate"])


@dataclass(frozen=True)
class InversionAblation(Study):
    """One image deleted at a time by a single gradient; the same deletions for every form of the attack. Not in the paper."""

    paper = "beyond the inversion paper: its attack, changed one setting at a time"
    about = "single deleted images, recovered with and without each improvement of the attack"
    tables = (
        Table("Forms of the attack", {form: _row(form) for form in FORMS}, _COLUMNS),
        Table("Forms of the attack: placebo", {form: _row(form, "placebo") for form in FORMS}, _COLUMNS),
        Table(
            "The stronger attacker, who has the weights before fine-tuning and the numbers of records",
            {target: _row(PAPER, target) for target in ("unlearned", "placebo")},
            {"rank": at("rank", STRONGER), "identified": at("identified_rate", STRONGER), "PSNR": at("psnr", STRONGER)},
        ),
    )
    claims = tuple(
        Claim(
            f"{form}: images are ranked no lower than by the paper's form, up to 0.1",
            ((1.0, _row(form) | RANK), (-1.0, _row(PAPER) | RANK)),
            above=-0.1,
        )
        for form in FORMS
        if form != PAPER
    )
    notes = (TWO_DISTANCES,)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        count, seeds = (8, 2) if scale == "small" else (100, 3)
        papers = PAPERS_FORM if scale == "small" else {"iterations": 10_000}
        third = {"iterations": papers["iterations"] // 3}
        return {
            form: features(
                scale,
                forget=[f"random={count}/1"],
                unlearn=[METHODS["approximate"]],
                attack=[FEATURES, STRONGER] if form == PAPER else [FEATURES],
                seeds=seeds,
                settings={
                    FEATURES: {**papers, **changes, **(third if form == THIRD else {})},
                    STRONGER: {**features(scale)["settings"][FEATURES], **papers},
                },
            )
            for form, changes in FORMS.items()
        }
