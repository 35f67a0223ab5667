"""Every warning can be raised, is documented, and stays silent where nothing is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from palimpsest.attack.leakage.confidence_membership import ConfidenceMembership
from palimpsest.attack.residual.square import Square
from palimpsest.attack.residual.transfer import Transfer
from palimpsest.attack.residual.uma import Uma
from palimpsest.attack.residual.uma_strong import UmaStrong
from palimpsest.audit import checks
from palimpsest.audit.board import Board, Place
from palimpsest.measures.intervals import share
from palimpsest.record import Cell
from palimpsest.types import Scores, Split


def board_with(place: Place, *measures: tuple[str, int, int, dict[str, float]]) -> Board:
    board = Board()
    made = [share(name, np.arange(n) < k, at=at) for name, k, n, at in measures]
    board.measures[place] = {measure.key: measure for measure in made}
    return board


def test_weaker_than_larger_epsilon() -> None:
    place = Place("uma", "unlearned", 0, "finetune")
    name = "uma.forget_accuracy"
    falling = board_with(place, (name, 90, 100, {"epsilon": 8 / 255}), (name, 40, 100, {"epsilon": 16 / 255}))
    rising = board_with(place, (name, 40, 100, {"epsilon": 8 / 255}), (name, 90, 100, {"epsilon": 16 / 255}))
    assert [w.name for w in checks.weaker_than_larger_epsilon(falling)] == ["attack-weaker-than-its-own-larger-epsilon"]
    assert "8/255" in checks.weaker_than_larger_epsilon(falling)[0].message
    assert checks.weaker_than_larger_epsilon(rising) == []
    radii = (2 / 255, 8 / 255, 16 / 255)
    slowly = board_with(
        place, *((name, hits, 100, {"epsilon": e}) for hits, e in zip((60, 55, 49), radii, strict=True))
    )
    assert "2/255 60.0%" in checks.weaker_than_larger_epsilon(slowly)[0].message, (
        "the same records: paired, and of all pairs"
    )


def test_a_search_that_finds_less_than_a_harder_one_is_told() -> None:
    threats, at = {"uma": Uma.threat, "uma_strong": UmaStrong.threat}, {"epsilon": 0.03}
    plain, hard = (Place(by, "unlearned", 0, "salun") for by in threats)
    for hits, named in ((20, ["harder-search-finds-more"]), (88, [])):
        board = board_with(plain, ("uma.forget_accuracy", hits, 100, at))
        board.measures[hard] = board_with(hard, ("uma_strong.forget_accuracy", 90, 100, at)).measures[hard]
        found = checks.beaten_by_harder(board, threats)
        assert [w.name for w in found] == named
        assert all("20.0% against 90.0% by uma_strong" in w.message for w in found)
        board.measures[hard] = board_with(hard, ("uma_strong.forget_accuracy", 90, 100, {"epsilon": 0.06})).measures[
            hard
        ]
        assert checks.beaten_by_harder(board, threats) == [], "at another radius"


def test_an_attack_on_the_models_own_weights_should_not_lose() -> None:
    """To one that sees answers, nor to one that sees another model; at the same radius where the weaker one has a radius."""
    threats = {cls.__name__.lower(): cls.threat for cls in (Uma, Square, Transfer)}
    threats["confidence_membership"] = ConfidenceMembership.threat
    for by, at, name, warned in (
        ("confidence_membership", {}, "mia_member_rate", "black-box-beats-white-box"),
        ("square", {"epsilon": 0.03}, "forget_accuracy", "black-box-beats-white-box"),
        ("transfer", {"epsilon": 0.03}, "forget_accuracy", "transfer-beats-white-box"),
    ):
        board = board_with(Place(by, "unlearned", 0, "salun"), (f"{by}.{name}", 95, 100, at))
        white = Place("uma", "unlearned", 0, "salun")
        for hits, expected in ((20, [warned]), (99, [])):
            other = (f"uma.{name}", 100 if at else 20, 100, {"epsilon": 0.06})
            rows = board_with(white, (f"uma.{name}", hits, 100, {"epsilon": 0.03}), other)
            board.measures[white] = rows.measures[white]
            found = checks.beaten_by_less(board, threats)
            assert [w.name for w in found] == expected, by
        assert checks.beaten_by_less(board_with(white, (f"uma.{name}", 1, 100, at)), threats) == []


def test_what_is_no_success_and_who_does_not_know_the_served_model_warn_of_nothing() -> None:
    """A larger distance is no success; an attacker who does not know of a release never searched on what it is scored on."""
    threats = {"uma": Uma.threat, "square": Square.threat, "transfer": Transfer.threat}
    at = {"epsilon": 0.03}
    white = Place("uma", "unlearned", 0, "salun")
    board = board_with(white, ("uma.minimum_distance", 5, 100, at), ("uma.forget_accuracy", 20, 100, at))
    black = Place("square", "unlearned", 0, "salun")
    board.measures[black] = board_with(black, ("square.minimum_distance", 95, 100, at)).measures[black]
    assert checks.beaten_by_less(board, threats) == []
    served = "salun+purification (unknown)"
    white, black = (Place(by, "unlearned", 0, served) for by in ("uma", "square"))
    falling = (("uma.forget_accuracy", 90, 100, at), ("uma.forget_accuracy", 20, 100, {"epsilon": 0.06}))
    board = board_with(white, *falling)
    board.measures[black] = board_with(black, ("square.forget_accuracy", 99, 100, at)).measures[black]
    assert checks.beaten_by_less(board, threats) == []
    assert checks.weaker_than_larger_epsilon(board, threats) == []
    moved = tuple((f"transfer.{name.split('.')[1]}", hits, n, where) for name, hits, n, where in falling)
    other = board_with(Place("transfer", "unlearned", 0, "salun"), *moved)
    assert checks.weaker_than_larger_epsilon(other, threats) == []


def test_more_records_than_the_weights_can_hold() -> None:
    """Of the cells whose records are more than the weights that an inversion goes by, and of no others."""
    board = Board()
    for seed, held in enumerate(([1.0, 1.0], [0.0, 0.0])):
        kept = Scores("record", np.array(["a", "b"]), {"separable": np.array(held)})
        board.scores[f"s{seed}"] = kept
        told = {"seed": seed, "target": "unlearned", "unlearner": "retrain", "attack": "feature_inversion"}
        board.cells.append(Cell(**told, scores=f"s{seed}"))
    (found,) = checks.inseparable(board)
    assert (found.name, found.message.split(": ")[-1]) == (
        "more-records-than-gradient",
        "retrain, seed 1, feature_inversion",
    )


def test_control_that_knows_a_class_it_never_saw() -> None:
    place = Place("accuracy", "retrained", 0)
    bad = board_with(place, ("forget_accuracy", 60, 100, {}))
    good = board_with(place, ("forget_accuracy", 1, 100, {}))
    ids = [np.array(["a", "b"])]
    assert checks.broken_controls(bad, [0], 0, ids, {"x"}, True, 10)
    assert checks.broken_controls(good, [0], 0, ids, {"x"}, True, 10) == []
    assert "trained on 1 of the 2" in checks.broken_controls(good, [0], 0, ids, {"a", "y"}, True, 10)[0]


def test_control_that_knows_forgotten_records_better_than_unseen_ones() -> None:
    place = Place("accuracy", "retrained", 0)
    for known, expected in ((498, 1), (410, 0)):
        board = board_with(place, ("forget_accuracy", known, 500, {}), ("heldout_accuracy", 400, 500, {}))
        assert len(checks.broken_controls(board, [0], 0, [np.array(["a"])], {"x"}, False, 10)) == expected


def test_base_accuracy_and_size(digits: Split) -> None:
    board = board_with(Place("accuracy", "original", 0), ("test_accuracy", 12, 100, {}))
    names = [w.name for w in checks.self_checks(board, digits, [0], [5], [], {})]
    assert names == ["base-accuracy-near-chance", "single-seed", "few-records"]
    fine = board_with(Place("accuracy", "original", 0), ("test_accuracy", 90, 100, {}))
    assert [w.name for w in checks.self_checks(fine, digits, [0, 1], [50, 50], [], {})] == []


def test_every_warning_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "warnings.md").read_text()
    for name, (when, meaning) in checks.MEANINGS.items():
        assert f"## {name}\n\nRaised if {when}.\n\n{meaning}\n" in page, name


def test_an_original_of_another_learner_near_chance(digits: Split) -> None:
    board = board_with(Place("accuracy", "original", 0), ("test_accuracy", 90, 100, {}))
    poor = Place("accuracy", "original", 0, "sharded")
    board.measures[poor] = board_with(poor, ("test_accuracy", 12, 100, {})).measures[poor]
    found = checks.self_checks(board, digits, [0, 1], [50], [], {}, ("", "sharded"))
    assert [(w.name, "learner sharded" in w.message) for w in found] == [("base-accuracy-near-chance", True)]
