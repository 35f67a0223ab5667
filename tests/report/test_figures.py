"""Drawings, images and the file that carries them."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from palimpsest.errors import BadInput
from palimpsest.measures.auc import roc
from palimpsest.report import figures
from palimpsest.report.numbers import TARGETS
from palimpsest.report.panels import load, save
from tests.report import made


def test_panels_come_back_as_they_were_saved(tmp_path: Path) -> None:
    panels = [made.panel("finetune"), made.panel("salun", channels=3), replace(made.panel(""), target="retrained")]
    save(tmp_path, [*panels, panels[2]])  # two retrained controls of one seed are alike but for their images
    found = load(tmp_path)
    assert len(found) == 4
    for one, other in zip(panels, found, strict=False):
        assert (one.unlearner, one.target, one.seed, one.classes) == (
            other.unlearner,
            other.target,
            other.seed,
            other.classes,
        )
        assert one.epsilon == other.epsilon
        for name in ("original", "attacked", "label", "before", "after"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    save(tmp_path, [])
    assert load(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"attacked": np.zeros((2, 1, 8, 9), dtype=np.float32)},
        {"label": np.array([0])},
        {"after": np.array([0, 2])},
        {"before": np.array([-1, 0])},
    ],
)
def test_a_panel_that_does_not_fit_is_refused(change: dict[str, np.ndarray]) -> None:
    with pytest.raises(BadInput, match="panel"):
        replace(made.panel(), **change)


def test_an_image_is_enlarged_by_a_whole_number_and_keeps_its_values() -> None:
    image = np.zeros((3, 8, 8), dtype=np.float32)
    image[0, 0, 0], image[1, 7, 7] = 1.0, 0.5
    shown = np.asarray(Image.open(io.BytesIO(figures.picture(image))))
    assert shown.shape == (96, 96, 3)
    assert shown[:12, :12].reshape(-1, 3).tolist() == [[255, 0, 0]] * 144
    assert shown[84:, 84:].reshape(-1, 3).tolist() == [[0, 128, 0]] * 144


def test_a_sheet_has_its_images_in_rows() -> None:
    """Each where it belongs: the colours, read from left to right and from above, are those that went in."""
    colours = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "mixed": (1.0, 0.0, 1.0)}
    images = {
        name: figures.picture(np.ones((3, 8, 8), dtype=np.float32) * np.array(values)[:, None, None])
        for name, values in colours.items()
    }
    rows = [("first", [images["red"], images["green"]]), ("second, longer", [images["blue"], images["mixed"]])]
    shown = np.asarray(Image.open(io.BytesIO(figures.sheet(rows))).convert("RGB")).astype(int)
    middles = {}
    for name, values in colours.items():
        down, right = np.nonzero((shown == (np.array(values) * 255).astype(int)).all(-1))
        assert len(down) > 1000, name
        middles[name] = (down.mean(), right.mean())
    assert middles["red"][0] == pytest.approx(middles["green"][0], abs=1)
    assert middles["red"][1] == pytest.approx(middles["blue"][1], abs=1)
    assert middles["red"][0] < middles["blue"][0] == pytest.approx(middles["mixed"][0], abs=1)
    assert middles["red"][1] < middles["green"][1] == pytest.approx(middles["mixed"][1], abs=1)


def test_images_of_any_channels_and_size_are_shown() -> None:
    for shape in ((1, 8, 8), (3, 32, 32), (4, 5, 7), (1, 300, 300)):
        shown = Image.open(io.BytesIO(figures.picture(np.full(shape, 0.5, dtype=np.float32))))
        assert shown.width % shape[2] == 0
        assert max(shown.size) >= 32


def test_labels_do_not_cover_each_other() -> None:
    for heights in ([0.0, 0.0, 0.0], [1.0, 1.0, 0.99], [0.5], [0.1, 0.9, 0.11, 0.12]):
        placed = figures._apart(heights)
        assert all(abs(a - b) >= 0.085 - 1e-9 for a, b in pairwise(sorted(placed)))
        assert max(placed) <= 1.0
        order = np.argsort(heights, kind="stable")
        assert (np.diff(np.asarray(placed)[order]) > 0).all()


def test_the_mean_of_one_roc_has_its_area() -> None:
    rng = np.random.default_rng(0)
    curves = [roc(rng.normal(1, 1, 400), rng.normal(0, 1, 400)) for _ in range(2)]
    areas = []
    for chosen in ([curves[0]], [curves[1]], curves):
        false, true = figures.mean_roc(chosen)
        assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
        assert (np.diff(true) >= 0).all()
        areas.append(np.trapezoid(true, false))
    for area, curve in zip(areas, curves, strict=False):
        assert area == pytest.approx(np.trapezoid(curve[1], curve[0]), abs=0.005)
    assert areas[2] == pytest.approx((areas[0] + areas[1]) / 2)


def test_every_target_has_a_colour_and_a_line_of_its_own() -> None:
    looks = [figures.LOOKS[target] for target in ("original", "retrained", *TARGETS)]
    assert len({look[0] for look in looks}) == len({str(look[1]) for look in looks}) == len(looks)
