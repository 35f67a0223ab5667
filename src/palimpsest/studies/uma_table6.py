"""Table 6 of the UMA paper: a purifier in front of the model, and an attacker who knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._purified import BARE, KNOWN, parts, table
from palimpsest.studies._uma import forget_accuracy
from palimpsest.studies.base import Claim, Scale, Study


@dataclass(frozen=True)
class UmaTable6(Study):
    """FT and SalUn behind a variational autoencoder on CIFAR-10, class-wise; UMA goes through it."""

    revision = 2
    paper = "UMA paper, Table 6"
    about = "purification by a variational autoencoder against an attacker who knows it"
    tables = (
        table(
            "Table 6: the attacker knows the purifier",
            KNOWN,
            {"FT": (4.86, 0.0142, 99.98, 0.9922, 100, 0.9970), "SalUn": (0, 0, 0.66, 0.0026, 10.38, 0.0584)},
        ),
    )
    claims = (
        Claim(
            "FT is recovered again above 60 % at 8/255",
            ((1.0, forget_accuracy(8, KNOWN["FT"])),),
            above=0.6,
            printed=0.9998,
        ),
        *(
            Claim(
                f"behind the purifier SalUn is recovered less at {epsilon}/255, by 2 points or more",
                ((1.0, forget_accuracy(epsilon, BARE["SalUn"])), (-1.0, forget_accuracy(epsilon, KNOWN["SalUn"]))),
                above=0.02,
                printed=printed,
            )
            for epsilon, printed in {8: 0.0538, 16: 0.222}.items()
        ),
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return parts(scale)
