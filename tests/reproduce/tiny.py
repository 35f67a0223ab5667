"""A study of a few seconds on bundled digits, as a user might write one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.studies.base import Claim, Curve, Scale, Study, Table, Tradeoff, Weighed, Where

UA = Where(measure="uma.forget_accuracy", at={"epsilon": 0.1}, times=100.0)
MODELS = {
    "Original": Where(target="original"),
    "retrain": Where(target="retrained"),
    "FT": Where("", "unlearned", "finetune"),
}


@dataclass(frozen=True)
class Tiny(Study):
    """Class 0 of digits by a linear model, at two numbers of attack steps."""

    paper = "none, Table 0"
    about = "a study for tests"
    tables = (
        Table(
            "Table 0",
            {name: where | Where("3 steps") for name, where in MODELS.items()},
            {
                "TA": Where(measure="test_accuracy", times=100.0),
                "UA": UA,
                "UA over retrain": UA | Where(minus="retrained"),
                "TA, share of GA's": Where(measure="test_accuracy", over="gradient_ascent", times=100.0),
                "residual": Where(measure="uma.residual_knowledge", at={"epsilon": 0.1}, minus="controls", times=100.0),
                "area": Where(measure="uma.residual_area", minus="controls", times=100.0),
                "k gradients": Where(measure="cost.samples", times=0.001),
            },
            {"Original": (95.0,), "retrain": (94.5, 0.0), "FT": (93.0, 40.0)},
            drawn=("UA",),
        ).within("3 steps"),
        Table("Table 00", {"elsewhere": Where("nowhere", "retrained")}, {"UA": UA}, {"elsewhere": (1.0,)}),
    )
    curves = (
        Curve(
            "Figure 0",
            "steps",
            "forget accuracy",
            {name: [(float(n), where | UA | Where(f"{n} steps")) for n in (1, 3)] for name, where in MODELS.items()},
        ),
    )
    tradeoffs = (
        Tradeoff(
            "Figure 00",
            "test accuracy",
            "forget accuracy",
            {
                "FT": [
                    Weighed(
                        float(n),
                        MODELS["FT"] | Where(f"{n} steps", measure="test_accuracy"),
                        MODELS["FT"] | UA | Where(f"{n} steps"),
                        MODELS["retrain"] | UA | Where(f"{n} steps"),
                        MODELS["Original"] | UA | Where(f"{n} steps"),
                        MODELS["retrain"] | UA | Where(f"{n} steps"),
                    )
                    for n in (1, 3)
                ],
                "nothing": [Weighed(1.0, *[UA | Where("nowhere")] * 5)],
            },
        ),
    )
    claims = (
        Claim(
            "the original knows its test records",
            ((1.0, Where("3 steps", "original", "", "test_accuracy")),),
            above=0.5,
        ),
        Claim(
            "the retrained model knows the class", ((1.0, UA | Where("3 steps", "retrained")),), above=0.9, printed=0.0
        ),
        Claim("nobody knows", ((1.0, UA | Where("nowhere", "retrained")),), above=0.0),
        Claim(
            "FT lies exactly where it lies",
            ((1.0, UA | Where("3 steps") | MODELS["FT"]), (-1.0, UA | Where("3 steps") | MODELS["FT"])),
            above=0.0,
        ),
    )

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {
            f"{steps} steps": {
                "data": "digits",
                "limit": 200 if scale == "small" else 400,
                "model": "linear",
                "recipe": {"epochs": 3},
                "forget": ["class=0"],
                "unlearn": ["finetune", "gradient_ascent"],
                "attack": ["uma"],
                "verify": [],
                "seeds": 1,
                "controls": 1,
                "threads": 1,
                "settings": {"finetune": {"epochs": 1}, "uma": {"epsilon": [0.1], "steps": steps}},
            }
            for steps in (1, 3)
        }


@dataclass(frozen=True)
class Broken(Tiny):
    """One whose data are nowhere."""

    about = "a study that cannot be run"

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        return {name: {**fields, "data": "no/such/folder"} for name, fields in super().parts(scale).items()}


@dataclass(frozen=True)
class Sizes(Tiny):
    """Audits of the same data set that take more or less of it."""

    about = "a study of two sizes"
    tables = (
        Table(
            "Table 0",
            {f"{size} private": Where(f"{size} private", "original") for size in (20, 40)},
            {"retain": Where(measure="retain_accuracy")},
        ),
    )
    curves, tradeoffs, claims = (), (), ()

    def parts(self, scale: Scale) -> Mapping[str, Mapping[str, Any]]:
        fields = super().parts(scale)["1 steps"]
        return {
            f"{size} private": {
                **fields,
                "unlearn": ["retrain"],
                "attack": ["confidence_membership"],
                "verify": ["accuracy"],
                "settings": {"digits": {"public": 0.5, "private": size}},
            }
            for size in (20, 40)
        }
