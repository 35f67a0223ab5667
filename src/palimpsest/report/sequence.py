"""What many requests do to the methods: quality and cost against their number."""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest.report.attacks import slug
from palimpsest.report.blocks import Figure, Gallery, Section
from palimpsest.report.costs import cost_of
from palimpsest.report.figures import Line, against_requests
from palimpsest.report.numbers import Key, Numbers
from palimpsest.report.wording import title
from palimpsest.types import Measure

SHOWN = ("test_accuracy", "retain_accuracy", "forget_accuracy")
QUALITY_TEXT = (
    "{what} after each request, all records asked for so far being the forget set. Bands are 95% intervals. Retrained: trained "
    "again after each request; original: before any."
)
COST_TEXT = (
    "Seconds spent on all requests so far, in units of training the original once. Retrained: training again after each "
    "request."
)


def section(numbers: Numbers) -> Section | None:
    """Curves against the number of requests; None where there was one only."""
    if len(numbers.requests) < 2:
        return None
    labels = list(dict.fromkeys(label for request in numbers.requests for label in numbers.methods(request)))
    galleries = [
        Gallery(tuple(figures), QUALITY_TEXT.format(what=title(key[0]).capitalize()))
        for key in sorted(
            (key for key in numbers.keys("accuracy") if key[0] in SHOWN), key=lambda key: SHOWN.index(key[0])
        )
        if (figures := [figure for label in labels if (figure := _quality(numbers, key, label))])
    ]
    costs = [figure for label in labels if (figure := _cost(numbers, label))]
    blocks = (*galleries, *([Gallery(tuple(costs), COST_TEXT)] if costs else []))
    return Section("requests", "Requests in sequence", blocks) if blocks else None


def _quality(numbers: Numbers, key: Key, label: str) -> Figure | None:
    lines = []
    for target in ("unlearned", "retrained", "original"):
        owner = numbers.owner(target, label)
        means = [(request + 1.0, numbers.mean("accuracy", key, target, owner, request)) for request in numbers.requests]
        lines.append(Line(target, tuple((at, mean.measure) for at, mean in means if mean)))
    return _figure(lines, label, key[0], title(key[0]), share=True)


def _cost(numbers: Numbers, label: str) -> Figure | None:
    unit = cost_of(numbers, "original", numbers.owner("original", label), numbers.requests[0]).get("seconds", 0.0)
    lines = []
    for target in ("unlearned", "retrained") if unit > 0 else ():
        owner = numbers.owner(target, label)
        spent, points = 0.0, []
        for request in numbers.requests:
            seconds = cost_of(numbers, target, owner, request).get("seconds")
            if seconds is None:  # the method failed here: nothing more is known of it
                break
            spent += seconds / unit
            points.append((request + 1.0, Measure("cost", spent, spent, spent, 1)))
        lines.append(Line(target, tuple(points)))
    return _figure(lines, label, "cost", "trainings so far", share=False)


def _figure(lines: Sequence[Line], label: str, name: str, words: str, *, share: bool) -> Figure | None:
    drawn = [line for line in lines if line.points]
    if not any(line.target == "unlearned" for line in drawn):
        return None
    form = "{:.0%}" if share else "{:.2f}"
    told = ". ".join(f"{line.target}: {', '.join(form.format(m.value) for _, m in line.points)}" for line in drawn)
    png = against_requests(drawn, label=words, share=share)
    return Figure(f"requests-{name}-{slug(label)}.png", label, png, f"{label}, {words} after each request. {told}")
