"""What defences cost and buy: use against leakage, the settings that nothing beats, and the least that hides a deletion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from palimpsest.report.blocks import Block, Entry, Figure, Gallery, Table
from palimpsest.report.figures import Spot, scatter
from palimpsest.reproduce.reading import Reading
from palimpsest.reproduce.result import Result, WeighedRow
from palimpsest.studies.base import Tradeoff

NOTE = (
    "Up is what leaks, to the right what is left of the model's use; a filled mark lies on the front: no other setting, of any "
    "defence, leaks less at as much use. Bars are 95 % intervals."
)
HIDES = (
    "A setting hides the deletion where what leaks is not shown to be beyond the placebo, while the same attack shows it of the "
    "undefended model, by more than the setting's interval reaches. That it is hidden from this attack is no proof that it is "
    "hidden from another."
)
NOTHING = "the attack reads nothing undefended"


def weigh(reading: Reading, tradeoff: Tradeoff) -> list[WeighedRow]:
    """Settings of which all was measured."""
    found = []
    for defence, settings in tradeoff.lines.items():
        for one in settings:
            use, leak = (reading.measured(replace(where, times=1.0)) for where in (one.use, one.leak))
            beyond, bare = reading.beyond(one.leak, one.placebo), reading.beyond(one.bare, one.bare_placebo)
            if use and leak and beyond and bare:
                row = WeighedRow(
                    tradeoff=tradeoff.title,
                    defence=defence,
                    setting=one.setting,
                    use=use,
                    leak=leak,
                    beyond=beyond,
                    bare=bare,
                )
                found.append(row)
    best = front(found)
    return [row.model_copy(update={"front": row in best}) for row in found]


def front(weighed: Sequence[WeighedRow]) -> list[WeighedRow]:
    """Those that no other one beats: none leaks less at as much use, or leaves more use and leaks as little."""

    def beaten(one: WeighedRow) -> bool:
        return any(
            other.use.value >= one.use.value
            and other.leak.value <= one.leak.value
            and (other.use.value, other.leak.value) != (one.use.value, one.leak.value)
            for other in weighed
        )

    return [one for one in weighed if not beaten(one)]


def least(weighed: Sequence[WeighedRow], defence: str) -> WeighedRow | None:
    """The weakest setting of a defence from which on all of its settings hide the deletion, in the order of the study."""
    found = None
    for one in (each for each in weighed if each.defence == defence):
        found = (found or one) if one.hides else None
    return found


def blocks(result: Result, tradeoff: Tradeoff, place: int) -> list[Block]:
    """A figure and a table; nothing where nothing was measured."""
    weighed = [row for row in result.tradeoffs if row.tradeoff == tradeoff.title]
    if not weighed:
        return []
    best = [row for row in weighed if row.front]
    spots = [
        Spot(
            one.defence,
            f"{one.setting:g}",
            (one.use.value, one.use.low, one.use.high),
            (one.leak.value, one.leak.low, one.leak.high),
            one.front,
        )
        for one in weighed
    ]
    png = scatter(spots, across=tradeoff.across, upwards=tradeoff.upwards)
    said = ", ".join(f"{one.defence} {one.setting:g}" for one in best)
    alt = f"{tradeoff.upwards} against {tradeoff.across}; on the front: {said}"
    figure = Figure(f"tradeoff-{place}.png", tradeoff.title, png, alt)
    rows = []
    for defence in tradeoff.lines:
        if any(one.defence == defence for one in weighed):
            found, read = least(weighed, defence), any(one.read for one in weighed if one.defence == defence)
            nothing = "none that was tried" if read else NOTHING
            mine = ", ".join(f"{one.setting:g}" for one in best if one.defence == defence) or "none"
            use = f"{found.use.value:.3f} [{found.use.low:.3f}, {found.use.high:.3f}]" if found else "–"
            rows.append(tuple(map(Entry.of, (defence, mine, f"{found.setting:g}" if found else nothing, use))))
    columns = ("Defence", "On the front", "Hidden from", f"{tradeoff.across} there")
    return [Gallery((figure,), NOTE), Table(columns, tuple(rows), tradeoff.title, HIDES)]
