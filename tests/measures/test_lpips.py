"""The door to LPIPS."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.measures.images import BAD, f64, noise
from torch import Tensor, nn

from palimpsest.attack.leakage.feature_inversion import FeatureInversion
from palimpsest.case import Case
from palimpsest.errors import BadInput
from palimpsest.forget.selection import select
from palimpsest.learn.base import Trained
from palimpsest.measures import perceptual as module
from palimpsest.measures.perceptual import lpips_available, lpips_distance
from palimpsest.models.linear import Linear
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Split


class Fake(nn.Module):
    """Where the package's network would be: it says what it was made with and shown, and draws as that one does."""

    made: list[dict[str, object]]

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.made.append(settings)
        self.weight = nn.Parameter(torch.rand(1))
        self.ranges: list[tuple[float, float, int]] = []

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        assert not self.training
        self.ranges.append((float(one.min()), float(one.max()), len(one)))
        return (one - other).abs().mean((1, 2, 3), keepdim=True) + 0 * self.weight


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    package, made = ModuleType("lpips"), []
    package.LPIPS = type("LPIPS", (Fake,), {"made": made})
    monkeypatch.setitem(sys.modules, "lpips", package)
    module._vgg.cache_clear()
    return made


def test_lpips_is_the_package_s_with_vgg_on_images_from_minus_one_to_one(fake: list[dict[str, object]]) -> None:
    assert lpips_available()
    one, other = torch.zeros(5, 3, 16, 16), f64(0, 0.125, 0.25, 0.5, 1).view(5, 1, 1, 1).expand(5, 3, 16, 16)
    one[:, :, 0, 0] = 1.0
    other = torch.where(one == 1, one, other)
    ambient = torch.get_rng_state()
    share = 255 / 256
    found = lpips_distance(one, other, batch_size=2)
    torch.testing.assert_close(found, share * 2 * f64(0, 0.125, 0.25, 0.5, 1))
    assert found.dtype == torch.float64
    assert not found.requires_grad
    lpips_distance(one, other)
    assert fake == [{"net": "vgg", "verbose": False}], "built once"
    assert torch.get_rng_state().equal(ambient)
    built = module._vgg(sys.modules["lpips"])
    assert built.ranges == [(-1.0, 1.0, 2), (-1.0, 1.0, 2), (-1.0, 1.0, 1), (-1.0, 1.0, 5)]


@pytest.mark.parametrize(("one", "other", "told"), BAD)
def test_images_that_lpips_cannot_compare_are_refused(
    fake: list[dict[str, object]], one: Tensor, other: Tensor, told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        lpips_distance(one, other)


@pytest.mark.parametrize("shape", [(1, 3, 15, 20), (1, 3, 20, 15), (1, 2, 20, 20)])
def test_images_too_small_for_vgg_are_refused(fake: list[dict[str, object]], shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="sides of 16 pixels or more"):
        lpips_distance(noise(*shape), noise(*shape))
    assert not fake


@pytest.mark.parametrize("source", [None, "raise RuntimeError('operator torchvision::nms does not exist')"])
def test_without_the_package_it_is_told_to_install_it(
    source: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source is None:
        monkeypatch.setitem(sys.modules, "lpips", None)
    else:
        (tmp_path / "lpips.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "lpips", raising=False)
    assert not lpips_available()
    with pytest.raises(BadInput, match=r"LPIPS: got no package.*pip install .palimpsest-ml.lpips.*leave it out"):
        lpips_distance(noise(1, 3, 16, 16), noise(1, 3, 16, 16))


def test_an_attack_takes_it_where_it_is_asked_for(
    fake: list[dict[str, object]], digits: Split, digits_task: Classification
) -> None:
    """Digits of 8 × 8 pixels are enlarged first, as LPIPS takes no smaller images than 16 × 16."""
    base = {
        name: values.repeat_interleave(2, 2).repeat_interleave(2, 3) for name, values in digits.train.inputs.items()
    }
    large = replace(digits, train=replace(digits.train, inputs=base), test=replace(digits.test, inputs=base))
    task = Classification.of(large)
    one, two = (Trained(Linear().build(task, Rng(n)).eval(), task, large.train.ids) for n in (0, 1))
    case = Case(large, (select("random=2", large.train, large.classes, rng=Rng(0)),), one, two)
    quick = {
        "iterations": 1,
        "restarts": 1,
        "decoys": 5,
        "extractor_width": 2,
        "extractor_epochs": 1,
        "batching": "loop",
    }
    asked, plain = FeatureInversion(lpips=True, **quick), FeatureInversion(**quick)
    scores = asked.run(case, rng=Rng(0))[1]
    assert scores["lpips"].shape == (2,)
    names = {measure.name for measure in asked.measure(scores)}
    assert {"feature_inversion.lpips", "feature_inversion.least_lpips", "feature_inversion.most_lpips"} <= names
    assert "lpips" not in plain.run(case, rng=Rng(0))[1].arrays
