"""The rules from measures to verdicts, one situation each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palimpsest.audit.policy import Evidence, Policy, Reading
from palimpsest.errors import BadInput
from palimpsest.types import Finding, Measure


def diff(value: float, spread: float = 0.01) -> Measure:
    return Measure("difference", value, value - spread, value + spread, 100)


def read(name: str = "uma.forget_accuracy at ε = 8/255", **changes: object) -> Reading:
    """A reading that says: forgotten, and the attack could have told."""
    base = Reading(
        name=name,
        attack=name.split(".")[0],
        value=0.02,
        minus_retrained=diff(0.01),
        minus_original=diff(-0.98),
        separation=diff(0.99),
        minus_matched=diff(0.0),
        needs_match=True,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def seeds_disagree(value: float = 0.9, matched: float = 0.0) -> Reading:
    """Recovered in one seed only, so that the interval over seeds says nothing."""
    quiet = (0.0, diff(0.0), diff(0.0))
    loud = (value, diff(value, 0.05), diff(matched, 0.05))
    return read(value=value / 3, minus_retrained=diff(value / 3, 1.0), by_seed=[quiet, loud, quiet])


def honest(**changes: object) -> Evidence:
    base = Evidence(
        forget=read("forget_accuracy"),
        test=read("test_accuracy", minus_retrained=diff(0.0)),
        readings=[read()],
        class_wise=True,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


CASES = {
    "honest": (honest(), Finding.FORGOTTEN),
    "broken control": (honest(broken=["a control was trained on the forget set"]), Finding.INCONCLUSIVE),
    "failed": (honest(failed=["seed 0: weights not finite"]), Finding.INCONCLUSIVE),
    "same weights": (honest(identical=True), Finding.NOT_APPLIED),
    "forget accuracy as before": (
        honest(forget=read("forget_accuracy", value=1.0, minus_original=diff(0.0), minus_retrained=diff(0.99))),
        Finding.NOT_APPLIED,
    ),
    "test accuracy collapsed": (honest(test=read("test_accuracy", minus_retrained=diff(-0.5))), Finding.OVER_FORGOTTEN),
    "test accuracy collapsed in every seed, by different amounts": (
        honest(
            test=read(
                "test_accuracy",
                minus_retrained=diff(-0.6, 1.0),
                by_seed=[(0.3, diff(-0.7), None), (0.5, diff(-0.5), None)],
            )
        ),
        Finding.OVER_FORGOTTEN,
    ),
    "test accuracy collapsed in one seed": (
        honest(
            test=read(
                "test_accuracy",
                minus_retrained=diff(-0.3, 1.0),
                by_seed=[(0.3, diff(-0.6), None), (0.9, diff(0.0), None)],
            )
        ),
        Finding.FORGOTTEN,
    ),
    "knows less than retraining": (
        honest(
            forget=read("forget_accuracy", minus_retrained=diff(-0.4), minus_original=diff(-0.5), separation=diff(0.0))
        ),
        Finding.OVER_FORGOTTEN,
    ),
    "membership far below chance": (
        honest(
            readings=[
                read(
                    "confidence_membership.auc",
                    value=0.2,
                    minus_retrained=diff(-0.3),
                    minus_matched=None,
                    needs_match=False,
                )
            ]
        ),
        Finding.OVER_FORGOTTEN,
    ),
    "beyond both controls": (
        honest(readings=[read(value=0.9, minus_retrained=diff(0.9), minus_matched=diff(0.5))]),
        Finding.RESIDUAL,
    ),
    "beyond retraining only": (
        honest(readings=[read(value=0.9, minus_retrained=diff(0.9), minus_matched=diff(0.02))]),
        Finding.SUPPRESSED_HEAD,
    ),
    "no matched control to tell": (
        honest(readings=[read(value=0.9, minus_retrained=diff(0.9), minus_matched=None)]),
        Finding.INCONCLUSIVE,
    ),
    "beyond retraining, no match needed": (
        honest(readings=[read(value=0.9, minus_retrained=diff(0.9), minus_matched=None, needs_match=False)]),
        Finding.RESIDUAL,
    ),
    "within the noise of retraining": (
        honest(readings=[read(value=0.2, minus_retrained=diff(0.18), noise=0.2)]),
        Finding.FORGOTTEN,
    ),
    "too uncertain": (honest(readings=[read(value=0.3, minus_retrained=diff(0.3, 0.29))]), Finding.INCONCLUSIVE),
    "one seed of three, by a suppressed head": (
        honest(readings=[seeds_disagree(matched=0.1)]),
        Finding.SUPPRESSED_HEAD,
    ),
    "one seed of three, beyond the matched control": (honest(readings=[seeds_disagree(matched=0.6)]), Finding.RESIDUAL),
    "beyond the matched control, within the noise of such controls": (
        honest(readings=[read(value=0.9, minus_retrained=diff(0.9), minus_matched=diff(0.3), matched_noise=0.4)]),
        Finding.SUPPRESSED_HEAD,
    ),
    "one seed of three, hardly": (honest(readings=[seeds_disagree(value=0.12)]), Finding.FORGOTTEN),
    "attack cannot tell": (
        honest(readings=[read(value=0.99, minus_retrained=diff(0.01), separation=diff(0.01))]),
        Finding.INCONCLUSIVE,
    ),
    "no attack": (honest(readings=[]), Finding.INCONCLUSIVE),
    "an attack failed, the others found nothing": (honest(gaps=["uma failed on retrained"]), Finding.INCONCLUSIVE),
    "an attack failed, another found memory": (
        honest(
            gaps=["uma failed on unlearned"],
            readings=[read(value=0.9, minus_retrained=diff(0.9), needs_match=False, minus_matched=None)],
        ),
        Finding.RESIDUAL,
    ),
    "no accuracy": (honest(test=None, forget=None), Finding.INCONCLUSIVE),
    "test accuracy collapsed, and only the original to compare with": (
        honest(test=read("test_accuracy", minus_retrained=None, minus_original=diff(-0.5))),
        Finding.OVER_FORGOTTEN,
    ),
    "no retrained model, test accuracy kept": (
        honest(test=read("test_accuracy", minus_retrained=None, minus_original=diff(0.0))),
        Finding.FORGOTTEN,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_situation(name: str) -> None:
    evidence, expected = CASES[name]
    finding, because = Policy().judge(evidence)
    assert finding == expected, because
    assert because
    assert all(because)


def test_margin_matters() -> None:
    evidence = honest(readings=[read(value=0.09, minus_retrained=diff(0.08), minus_matched=diff(0.08))])
    assert Policy(margin=0.05).judge(evidence)[0] == Finding.RESIDUAL
    assert Policy(margin=0.2).judge(evidence)[0] == Finding.FORGOTTEN


def test_utility_matters() -> None:
    evidence = honest(test=read("test_accuracy", minus_retrained=diff(-0.15)))
    assert Policy(utility=0.10).judge(evidence)[0] == Finding.OVER_FORGOTTEN
    assert Policy(utility=0.20).judge(evidence)[0] == Finding.FORGOTTEN


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0.0, 1.0])
@pytest.mark.parametrize("field", ["margin", "utility"])
def test_thresholds_outside_their_domain(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=field):
        Policy(**{field: value})
