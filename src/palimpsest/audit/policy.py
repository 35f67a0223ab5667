"""From measures to a verdict. The rules are few, their thresholds are fields, and each verdict carries its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from palimpsest.bounds import check
from palimpsest.catalog import setting
from palimpsest.types import Finding, Measure


@dataclass(frozen=True)
class Reading:
    """One measure of one method, averaged over seeds, with what it is to be compared with.

    name: as in the record, with its parameter ("uma.forget_accuracy at 8/255"). minus_retrained, minus_matched,
    minus_original: paired differences, None where there is no such control. separation: original minus retrained, which says
    whether the measure can tell at all. noise: how far two retrained models lie apart (mean over seeds); matched_noise: two
    bias-matched ones. by_seed: of each seed alone the value, minus retrained and minus matched; these intervals cover the
    records only, Bonferroni over seeds and readings.
    """

    name: str
    attack: str
    value: float
    minus_retrained: Measure | None
    minus_original: Measure | None
    separation: Measure | None
    by_seed: Sequence[tuple[float, Measure, Measure | None]] = ()
    minus_matched: Measure | None = None
    needs_match: bool = False
    noise: float = 0.0
    matched_noise: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """All that a verdict on one method goes by. `broken`: reasons for which the audit itself cannot be relied on. `gaps`: what
    failed of the attacks and accuracies, on the method or on a control, so that nothing can be concluded from its silence."""

    forget: Reading | None
    test: Reading | None
    readings: Sequence[Reading] = ()
    broken: Sequence[str] = ()
    gaps: Sequence[str] = ()
    failed: Sequence[str] = ()
    identical: bool = False
    class_wise: bool = False


@dataclass(frozen=True)
class Policy:
    """How measures become verdicts.

    A difference counts only where its whole interval (Bonferroni over the readings) lies beyond the margin and beyond the
    noise between two retrained models. Where seeds disagree too much for that, single seeds are looked at: beyond twice the
    margin in one of them is a finding too, since a deletion has to succeed every time.
    """

    margin: float = setting(0.05, "a difference below it counts as none; a share of 1", source="ours", above=0, below=1)
    utility: float = setting(
        0.10, "a loss of test accuracy above it is over-forgetting; a share of 1", source="ours", above=0, below=1
    )

    matching: Literal["gap", "accuracy"] = setting(
        "gap",
        "what a bias-matched control shares with a method: the median logit gap of the forgotten class, or the forget accuracy too",
        source="ours",
    )

    def __post_init__(self) -> None:
        check(self, "policy")

    def judge(self, evidence: Evidence) -> tuple[Finding, tuple[str, ...]]:
        """The finding, and the sentences behind it."""
        if evidence.broken:
            return Finding.INCONCLUSIVE, tuple(evidence.broken)
        if evidence.failed:
            return Finding.INCONCLUSIVE, tuple(f"failed: {reason}" for reason in evidence.failed)
        if evidence.identical:
            return Finding.NOT_APPLIED, ("the weights are those of the original",)
        for rule in (self._not_applied, self._over_forgotten, self._remembered):
            found = rule(evidence)
            if found:
                return found
        return self._forgotten(evidence)

    def _not_applied(self, evidence: Evidence) -> tuple[Finding, tuple[str, ...]] | None:
        """Forget accuracy as the original's, where retraining changes it."""
        read = evidence.forget
        if read is None or read.minus_original is None or not self.decisive(read):
            return None
        if -self.margin <= read.minus_original.low and read.minus_original.high <= self.margin:
            told = f"{_words(read)} {read.value:.1%} is the original's ({_signed(read.minus_original, read)})"
            return Finding.NOT_APPLIED, (f"{told}; retraining changes it",)
        return None

    def _over_forgotten(self, evidence: Evidence) -> tuple[Finding, tuple[str, ...]] | None:
        """Test accuracy lost, or less known of the forget set than retraining leaves."""
        reasons = []
        test, forget = evidence.test, evidence.forget
        if test and _below(test, self.utility):
            reasons.append(f"{_words(test)} {test.value:.1%}, {_signed(test.minus_retrained, test)} from retraining's")
        elif test and test.minus_retrained is None and test.minus_original and test.minus_original.high < -self.utility:
            reasons.append(f"{_words(test)} {test.value:.1%}, {_signed(test.minus_original, test)} from the original's")
        if forget and _below(forget, self._floor(forget)):
            reasons.append(
                f"{_words(forget)} {forget.value:.1%}, {_signed(forget.minus_retrained, forget)} from retraining's"
            )
        for read in evidence.readings:
            if read.name.endswith(".auc") and _below(read, self._floor(read)):
                reasons.append(
                    f"{read.name} {_plain(read)} lies below retraining's: what was forgotten stands out by its absence"
                )
        return (Finding.OVER_FORGOTTEN, tuple(reasons)) if reasons else None

    def _remembered(self, evidence: Evidence) -> tuple[Finding, tuple[str, ...]] | None:
        """More known than retraining leaves: memory where it also exceeds the bias-matched control, else a suppressed head."""
        residual, suppressed, untold = [], [], []
        reads = [*evidence.readings, *([evidence.forget] if evidence.forget else [])]
        for read in reads:
            if not self.decisive(read):
                continue
            if self._exceeds(read, read.minus_retrained):
                text = f"{read.name} {_plain(read)}, {_signed(read.minus_retrained, read)} over retraining"
                over = self._beyond_matched(read, read.minus_matched)
                matched = [read.minus_matched] if read.minus_matched else []
            elif hits := [hit for hit in read.by_seed if hit[1].low > 2 * self._floor(read)]:
                values = ", ".join(_plain(read, hit[0]) for hit in read.by_seed)
                text = f"{read.name} beyond retraining in {len(hits)} of {len(read.by_seed)} seeds ({values})"
                matched = [hit[2] for hit in hits if hit[2] is not None]
                over = any(self._beyond_matched(read, difference) for difference in matched)
            else:
                continue
            told = " and ".join(_signed(difference, read) for difference in matched)
            if read.needs_match and not matched:
                untold.append(f"{text}; no bias-matched control tells memory from a suppressed head")
            elif matched and not over:
                suppressed.append(f"{text}, but {told} over the bias-matched control")
            else:
                residual.append(text + (f", and {told} over the bias-matched control" if matched else ""))
        for finding, reasons in (
            (Finding.RESIDUAL, residual),
            (Finding.INCONCLUSIVE, untold),
            (Finding.SUPPRESSED_HEAD, suppressed),
        ):
            if reasons:
                return finding, tuple(reasons)
        return None

    def _forgotten(self, evidence: Evidence) -> tuple[Finding, tuple[str, ...]]:
        if evidence.gaps:
            return Finding.INCONCLUSIVE, tuple(evidence.gaps)
        test = evidence.test
        if test is None or not (test.minus_retrained or test.minus_original):
            return Finding.INCONCLUSIVE, ("accuracy was not measured, so the model may know nothing at all any more",)
        decisive = [read for read in evidence.readings if self.decisive(read)]
        if not decisive:
            return Finding.INCONCLUSIVE, (
                "no attack tells the original from a retrained model here, so none could find anything",
            )
        if all(read.needs_match and read.minus_matched is None for read in decisive):
            return Finding.INCONCLUSIVE, (
                "a whole class was forgotten and there is no retrained control: unseen records of it cannot stand in",
            )
        unclear = [
            read for read in decisive if read.minus_retrained and read.minus_retrained.value > 2 * self._floor(read)
        ]
        if unclear:
            return Finding.INCONCLUSIVE, tuple(_unclear(read) for read in unclear)
        told = tuple(
            f"{read.name} {_plain(read)}, {_signed(read.minus_retrained, read)} from retraining" for read in decisive
        )
        return Finding.FORGOTTEN, told

    def decisive(self, read: Reading) -> bool:
        """Whether the measure tells the original from a retrained model; if not, it can find nothing."""
        return read.separation is not None and read.separation.low > 2 * self.margin

    def _floor(self, read: Reading) -> float:
        return max(self.margin, read.noise)

    def _beyond_matched(self, read: Reading, difference: Measure | None) -> bool:
        """Beyond the bias-matched control, and beyond what such controls differ among themselves."""
        return difference is not None and difference.low > max(self._floor(read), read.matched_noise)

    def _exceeds(self, read: Reading, difference: Measure | None) -> bool:
        return difference is not None and difference.low > self._floor(read)


def _below(read: Reading, margin: float) -> bool:
    """Whether less than retraining leaves, by more than the margin: over the seeds, or in every single one."""
    if read.minus_retrained is None:
        return False
    each = [hit[1].high < -margin for hit in read.by_seed]
    return read.minus_retrained.high < -margin or (bool(each) and all(each))


def _unclear(read: Reading) -> str:
    seeds = ", ".join(_plain(read, hit[0]) for hit in read.by_seed)
    each = f" (by seed: {seeds})" if len(read.by_seed) > 1 else ""
    return f"{read.name}: {_signed(read.minus_retrained, read)} over retraining{each}, too uncertain to call"


def _words(read: Reading) -> str:
    """forget_accuracy → forget accuracy."""
    return read.name.replace("_", " ")


def _is_share(read: Reading) -> bool:
    return not read.name.endswith(".auc")


def _plain(read: Reading, value: float | None = None) -> str:
    shown = read.value if value is None else value
    return f"{shown:.1%}" if _is_share(read) else f"{shown:.2f}"


def _signed(measure: Measure | None, read: Reading) -> str:
    if measure is None:
        return "unknown"
    style = "+.1%" if _is_share(read) else "+.2f"
    return f"{measure.value:{style}} [{measure.low:{style}}, {measure.high:{style}}]"
