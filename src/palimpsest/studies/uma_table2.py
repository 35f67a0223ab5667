"""Table 2 of the UMA paper: random records forgotten by five methods and by retraining, attacked at two radii."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies._uma import COLUMNS, METHODS, RECORDS, SMALL, forget_accuracy, merged, paper, rows, unlearned
from palimpsest.studies.base import Claim, Scale, Study, Table, Where

_RETRAINED = Where("CIFAR-10", "retrained")


@dataclass(frozen=True)
class UmaTable2(Study):
    """Instance-wise forgetting under the Unlearning Mapping Attack: even models that never saw the records are "recovered".

    Small: CIFAR-10, 10,000 images, ResNet-18 of width 16, a tenth of the training records. Paper: ResNet-50; 5,000 random
    records of CIFAR-10 and CIFAR-100, 10,000 of Tiny-ImageNet.
    """

    paper = "UMA paper, Table 2"
    about = "instance-wise forgetting under UMA: five methods and retraining, 8/255 and 16/255"
    tables = tuple(
        table.within(data)
        for data, printed in {
            "CIFAR-10": {
                "Original": (94.13, 100, 0.9732),
                "retrain": (93.34, 93.78, 0.8636, 99.98, 0.9774, 99.98, 0.9728),
                "FT": (92.13, 98.02, 0.9124, 99.98, 0.9794, 99.96, 0.9810),
                "RL": (89.22, 91.88, 0.8012, 99.96, 0.9896, 100, 0.9866),
                "IU": (89.82, 97.92, 0.8926, 99.98, 0.9630, 99.98, 0.9628),
                "l1-sparse": (91.32, 95.76, 0.8848, 99.98, 0.9842, 100, 0.9814),
                "SalUn": (90.55, 93.48, 0.8140, 100, 0.9884, 99.98, 0.9872),
            },
            "CIFAR-100": {
                "Original": (75.25, 100, 0.9924),
                "retrain": (73.92, 72.72, 0.7354, 99.92, 0.9910, 100, 0.9932),
                "FT": (70.90, 96.44, 0.9436, 99.96, 0.9970, 100, 0.9972),
                "RL": (71.05, 86.04, 0.7786, 99.98, 0.9946, 100, 0.9956),
                "IU": (71.89, 99.20, 0.9702, 100, 0.9894, 100, 0.9912),
                "l1-sparse": (69.60, 90.10, 0.7404, 99.98, 0.9704, 99.98, 0.9756),
                "SalUn": (71.99, 88.72, 0.7936, 99.94, 0.9890, 100, 0.9914),
            },
            "Tiny-ImageNet": {
                "Original": (64.17, 99.98, 0.9978),
                "retrain": (61.81, 60.17, 0.6387, 99.97, 0.9735, 100, 0.9811),
                "FT": (55.66, 85.42, 0.8908, 99.99, 0.9969, 99.97, 0.9969),
                "RL": (55.36, 72.88, 0.8002, 99.99, 0.9962, 99.98, 0.9968),
                "IU": (56.33, 94.85, 0.9591, 99.97, 0.9967, 99.98, 0.9969),
                "l1-sparse": (56.04, 61.71, 0.3836, 99.99, 0.7597, 100, 0.7614),
                "SalUn": (54.94, 66.99, 0.6237, 99.99, 0.9654, 99.99, 0.9681),
            },
        }.items()
        for table in [Table(f"Table 2, {data}, instance-wise", rows(matched=False), COLUMNS, printed)]
    )
    claims = (
        Claim(
            "the retrained model is recovered too: above 95 % at 8/255",
            ((1.0, forget_accuracy(8, _RETRAINED)),),
            above=0.95,
            printed=0.9998,
        ),
        *(
            Claim(
                f"{name} is recovered above 95 % at 8/255",
                ((1.0, forget_accuracy(8, unlearned(name, "CIFAR-10"))),),
                above=0.95,
                printed=printed,
            )
            for name, printed in {"FT": 0.9998, "RL": 0.9996, "IU": 0.9998, "l1-sparse": 0.9998, "SalUn": 1.0}.items()
        ),
        Claim(
            "FT forgets less than retraining: its unattacked UA is higher",
            (
                (1.0, forget_accuracy(0, unlearned("FT", "CIFAR-10"))),
                (-1.0, forget_accuracy(0, _RETRAINED)),
            ),
            above=0.0,
            printed=0.0424,
        ),
    )
    notes = (
        "The claims are about CIFAR-10.",
        "A raw UA says nothing here: the retrained model, which never saw the records, is recovered like the others. Only the "
        "excess over it could be memory.",
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        methods = {"unlearn": list(METHODS.values())}
        if scale == "small":
            return {"CIFAR-10": merged(SMALL, forget=["random=0.1"], **methods)}
        return {name: merged(paper(name), forget=[f"random={count}"], **methods) for name, count in RECORDS.items()}
