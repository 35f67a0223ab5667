"""Table 5 of the UMA paper: a purifier in front of the model, and an attacker who does not know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._purified import BARE, UNKNOWN, parts, table
from palimpsest.studies._uma import forget_accuracy, test_accuracy
from palimpsest.studies.base import Claim, Scale, Study


@dataclass(frozen=True)
class UmaTable5(Study):
    """FT and SalUn behind a variational autoencoder on CIFAR-10, class-wise; UMA is made on the model without it."""

    revision = 2
    paper = "UMA paper, Table 5"
    about = "purification by a variational autoencoder against an attacker who does not know of it"
    tables = (
        table(
            "Table 5: the attacker does not know of the purifier",
            UNKNOWN,
            {"FT": (4.86, 0.0142, 4.90, 0.0142, 5.40, 0.0152), "SalUn": (0, 0, 0, 0, 0, 0)},
        ),
    )
    claims = (
        Claim(
            "the purifier takes 50 points or more off FT's UA under attack at 8/255",
            ((1.0, forget_accuracy(8, BARE["FT"])), (-1.0, forget_accuracy(8, UNKNOWN["FT"]))),
            above=0.5,
            printed=0.9506,
        ),
        Claim(
            "behind the purifier FT stays below 10 % at 16/255",
            ((1.0, forget_accuracy(16, UNKNOWN["FT"])),),
            below=0.1,
            printed=0.054,
        ),
        Claim(
            "behind the purifier SalUn stays below 5 % at 16/255",
            ((1.0, forget_accuracy(16, UNKNOWN["SalUn"])),),
            below=0.05,
            printed=0.0,
        ),
        *(
            Claim(
                f"the purifier costs {name} less than 5 points of test accuracy",
                ((1.0, test_accuracy(UNKNOWN[name])), (-1.0, test_accuracy(BARE[name]))),
                above=-0.05,
            )
            for name in BARE
        ),
    )
    notes = ("The paper prints no test accuracy here: it says that it is slightly lower.",)

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return parts(scale)
