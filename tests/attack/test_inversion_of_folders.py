"""Deleted images of a folder with a folder per class, of several sizes, grey like X-rays or in colour: recovered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tests.audit import small

from palimpsest.attack.leakage.feature_inversion import FeatureInversion
from palimpsest.data.hub import Hub
from palimpsest.learn.finetuned import Finetuned
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.unlearn.single_gradient import SingleGradient
from palimpsest.verify.accuracy import Accuracy

SIZE = 12


def pictures(folder: Path, colour: bool) -> Path:
    """Real digits as PNG files of their own sizes, `train/<digit>/<number>.png`; in colour each class has a tint."""
    pixels, classes = load_digits(return_X_y=True)
    chosen = np.flatnonzero(classes < 3)[:240]
    for number, row in enumerate(chosen):
        grey = (pixels[row].reshape(8, 8) * 15.9).astype(np.uint8)
        tinted = [grey if channel == classes[row] else grey // 2 for channel in range(3)]
        values = np.stack(tinted, 2) if colour else grey
        image = Image.fromarray(values).resize((16 + number % 5, 16 + number % 3))
        place = folder / "train" / f"digit-{classes[row]}"
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number}.png")
    return folder


@pytest.mark.parametrize(("colour", "channels"), [(False, 1), (True, 3)], ids=["x-ray", "colour"])
def test_a_deleted_image_is_recovered_and_kept_as_a_picture(tmp_path: Path, colour: bool, channels: int) -> None:
    folder = pictures(tmp_path / "pictures", colour)
    record = small.run(
        tmp_path,
        data=Hub(str(folder), size=SIZE, public=0.5),
        model=Linear(),
        learner=Finetuned(pretraining_epochs=1, pretraining_lr=0.01, frozen_norms=True),
        recipe=Recipe(epochs=1, batch_size=32, lr=0.01, momentum=0.0, weight_decay=0.0, schedule="constant"),
        forget=("random=1",),
        unlearners=(SingleGradient(),),
        attacks=(FeatureInversion(iterations=200, restarts=1, decoys=20, total_variation=0.0),),
        verifiers=(Accuracy(),),
        controls=1,
    )
    assert record.data["shape"] == [channels, SIZE, SIZE]
    (cell,) = [cell for cell in record.cells if cell.attack and cell.target == "unlearned"]
    found = {measure.name.split(".")[-1]: measure.value for measure in cell.measures}
    assert (cell.status, cell.reason) == ("ok", "")
    assert found["psnr"] > 20
    assert found["rank"] == 1.0
    assert list((tmp_path / "out" / "figures").glob("*single_gradient*.png"))
