"""How numbers and names are put into words, and what the report's words mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from palimpsest.record import SHARED, Cell, MeasureRow
from palimpsest.types import Finding, Measure

VERDICTS: Mapping[Finding, str] = {
    Finding.RESIDUAL: "An attack finds more than in a retrained model, and more than a suppressed head explains: "
    "knowledge of the forgotten records is left.",
    Finding.SUPPRESSED_HEAD: "An attack brings the forgotten class back, but no more than from a retrained model whose output "
    "bias was set to match: the class was turned down at the output. No evidence of memory.",
    Finding.OVER_FORGOTTEN: "More was lost than retraining loses: test accuracy fell, or the forgotten records stand out by "
    "being known less than records never seen.",
    Finding.NOT_APPLIED: "The forgotten records are still known as well as before: at these settings the method did not "
    "forget. No evidence for or against the method.",
    Finding.INCONCLUSIVE: "The audit cannot say: something failed, a control cannot be trusted, or no attack here can tell "
    "the original from a retrained model.",
    Finding.FORGOTTEN: "Attacks that can tell the original from a retrained model find no more here than in a retrained model.",
}
"""Verdict → one line; the ones that need attention come first."""

CONTROLS: Mapping[str, str] = {
    "unlearned": "the model after unlearning",
    "original": "the model before unlearning; shows what is found when nothing was forgotten",
    "retrained": "models trained anew without the forgotten records; show what is found when there is nothing to find",
    "clean": "the model as it would be had nothing been handed in for training; shows what is found when nobody poisons",
    "untrained": "a model with fresh weights; shows what an attack brings forth from any model",
    "bias-matched": "a retrained model whose output bias for the forgotten class is shifted until it is as ready to name the class "
    "as the unlearned model; shows what an attack brings back without any memory",
    "placebo": "the method's own model, asked for records that no model was trained on",
    "known-leak": "the original after one plain step on the forgotten records; shows what is found where a deletion says all",
}

NAMES: Mapping[str, str] = {
    "auc": "AUC",
    "mia_member_rate": "forgotten called members (MIA)",
    "mia_heldout_member_rate": "held-out called members",
    "tpr_at_1pct_fpr": "TPR at 1% FPR",
    "heldout_accuracy": "held-out accuracy",
    "js_divergence_forget": "JS divergence, forget",
    "js_divergence_retain": "JS divergence, retain",
    "js_divergence_test": "JS divergence, test",
    "js_divergence_heldout": "JS divergence, held-out",
}

RADII = ("epsilon", "step_size")
"""Settings in pixel values, shown as parts of 255 where they are that."""

Number = Measure | MeasureRow


def is_share(name: str) -> bool:
    """Whether a measure is a share, to be shown as a percentage."""
    last = name.rsplit(".", 1)[-1]
    return (
        last.endswith(("accuracy", "_rate", "accuracy_gap", "_quality", "_resemblance"))
        or last.startswith("tpr_at")
        or last == "relearned"
    )


def title(name: str) -> str:
    """uma.forget_accuracy → forget accuracy."""
    last = name.rsplit(".", 1)[-1]
    return NAMES.get(last, last.replace("_", " "))


def number(name: str, value: float, *, signed: bool = False) -> str:
    """A value of this measure: 97.2% for shares, 1.189 for the rest. signed: a difference, in percentage points."""
    text = _rounded(name, value, "+" if signed else "")
    return f"{text}%" if is_share(name) and not signed else text


def interval(name: str, low: float, high: float, *, signed: bool = False) -> str:
    """[95.1, 98.3], in the unit of `number`."""
    ends = [_rounded(name, end, "+" if signed else "") for end in (low, high)]
    return f"[{ends[0]},\u00a0{ends[1]}]"  # not to be broken between two lines


def _rounded(name: str, value: float, sign: str) -> str:
    """One place for percentages and steps, three for the rest; zero has no sign."""
    places = 1 if is_share(name) or name.endswith("steps") else 3
    scaled = round(100 * value if is_share(name) else value, places)
    return f"{scaled:{sign if scaled else ''},.{places}f}" if scaled else f"{0:.{places}f}"


def epsilon(value: float, image: bool) -> str:
    """8/255 for images, where all of the domain is no bound; a plain number for everything else."""
    if image and value >= 1:
        return "unbounded"
    return f"{value * 255:.4g}/255" if image and value else f"{value:.4g}"


def settings(values: Mapping[str, Any]) -> str:
    """lr = 0.01, epochs = 10; a class's name and revision are left out."""
    shown = {key: value for key, value in values.items() if key not in ("name", "revision")}
    return ", ".join(f"{key} = {set_to(value, key in RADII)}" for key, value in shown.items())


def set_to(value: Any, radius: bool = False) -> str:
    """A setting in words; `radius`: as a part of 255 where it is one and less than all, as the ε of a certificate may be 1."""
    if isinstance(value, float):
        whole = radius and 0 < value < 1 and abs(value * 255 - round(value * 255)) < 1e-9
        return f"{value * 255:.0f}/255" if whole else f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(set_to(entry, radius) for entry in value) + ")"
    if isinstance(value, dict):
        return f"{value.get('name', '')}({settings(value)})"
    return "none" if value is None else str(value)


def subject(target: str, label: str) -> str:
    """Who sits in the subject's place, as a table's first column says it."""
    if target == "unlearned":
        return label or target
    if target in SHARED:
        return f"{target} ({label})" if label else target
    return f"{label}: {target} control" if label else target


def count(number: int, singular: str, plural: str = "") -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def listed(names: list[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "none"


def some(names: Iterable[str], most: int = 4) -> str:
    """The first few different ones, and how many more there are."""
    different = list(dict.fromkeys(names))
    rest = f" and {len(different) - most} more" if len(different) > most else ""
    return ", ".join(different[:most]) + rest


def short(text: str, most: int = 200) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def examiner(cell: Cell) -> str:
    """The attack or verifier that gave a cell."""
    return cell.attack or cell.verifier or "none"
