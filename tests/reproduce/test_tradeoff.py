"""Trade-offs of defences: which settings nothing beats, and from which on a deletion is hidden."""

from __future__ import annotations

from palimpsest.reproduce.result import Measured, WeighedRow
from palimpsest.reproduce.tradeoff import front, least


def number(value: float, reach: float = 0.0) -> Measured:
    return Measured(value=value, low=value - reach, high=value + reach, n=10, seeds=1)


def weighing(
    defence: str, setting: float, use: float, leak: float, reach: float = 0.05, bare: float = 0.4
) -> WeighedRow:
    """bare: how far the undefended leak lies beyond its placebo, at 0.5."""
    return WeighedRow(
        tradeoff="",
        defence=defence,
        setting=setting,
        use=number(use),
        leak=number(leak, reach),
        beyond=number(leak - 0.5, reach),
        bare=number(bare, 0.05),
    )


ALL = [
    weighing("noise", 1.0, 0.99, 0.9),
    weighing("noise", 2.0, 0.95, 0.7),
    weighing("noise", 3.0, 0.80, 0.52),
    weighing("pruning", 1.0, 0.97, 0.9),
    weighing("pruning", 2.0, 0.95, 0.65),
    weighing("pruning", 3.0, 0.60, 0.53),
]


def test_the_front_is_what_no_other_setting_beats() -> None:
    found = [(one.defence, one.setting) for one in front(ALL)]
    assert found == [("noise", 1.0), ("noise", 3.0), ("pruning", 2.0)]


def test_equal_settings_do_not_beat_each_other() -> None:
    same = [weighing("noise", 1.0, 0.9, 0.7), weighing("pruning", 1.0, 0.9, 0.7)]
    assert front(same) == same


def test_the_least_setting_hides_and_so_do_all_stronger_ones() -> None:
    found = least(ALL, "noise")
    assert found is not None
    assert found.setting == 3.0
    again = [weighing("noise", 1.0, 0.99, 0.5), *ALL[1:3]]
    found = least(again, "noise")
    assert found is not None
    assert found.setting == 3.0, "a weaker one that hides by luck does not count"
    assert least(ALL[:2], "noise") is None


def test_a_deletion_is_hidden_where_nothing_is_read_that_was_read_undefended() -> None:
    assert weighing("noise", 1.0, 1.0, 0.54, reach=0.05).hides
    assert not weighing("noise", 1.0, 1.0, 0.54, reach=0.03).hides, "it is shown to leak"
    assert not weighing("noise", 1.0, 1.0, 0.54, reach=0.5).hides, "too uncertain: it may leak as much as before"
    assert not weighing("noise", 1.0, 1.0, 0.5, bare=0.04).hides, "the attack reads nothing in the first place"
