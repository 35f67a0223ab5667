"""Folders that `datasets` opens: images, parts, ids, and what is refused."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from palimpsest.data.hub import Hub
from palimpsest.errors import BadInput, PalimpsestError
from tests.data.sources import colours, people, png

Folder = Callable[..., Path]
Write = Callable[..., Path]


def test_images_labels_and_ids(offline: None, image_folder: Folder, own_cache: Path) -> None:
    train, test = colours(60), colours(20, seed=1)
    split = Hub(str(image_folder(train=[png(p) for p in train], test=[png(p) for p in test]))).load()
    assert (split.name, split.kind, split.shape) == ("pictures", "image", (3, 6, 6))
    assert split.classes == ("cat", "dog", "owl")
    assert set(split.test.ids) == {f"pictures/test/{row}" for row in range(20)}
    assert {name.rsplit("/", 1)[0] for name in (*split.train.ids, *split.validation.ids)} == {"pictures/train"}
    for part, source in ((split.train, train), (split.validation, train), (split.test, test)):
        images = part.raw("image")
        assert images.dtype == torch.uint8
        for name, image, target in zip(part.ids.tolist(), images, part.targets.tolist(), strict=True):
            row = int(name.rsplit("/", 1)[1])
            assert target == row % 3
            np.testing.assert_array_equal(image.numpy(), source[row].transpose(2, 0, 1))
    assert not [path for path in own_cache.rglob("*") if path.is_file()]  # no copy is left behind


def test_all_grey_stays_grey_and_mixed_becomes_colour(image_folder: Folder) -> None:
    pixels = colours(30)
    grey = [png(p, "L") for p in pixels]
    assert Hub(str(image_folder("grey", train=grey))).load().shape == (1, 6, 6)
    modes = ["L", "RGB", "RGBA", "P", "1", "LA"]
    mixed = Hub(str(image_folder("mixed", train=[png(p, modes[i % 6]) for i, p in enumerate(pixels)]))).load()
    assert mixed.shape == (3, 6, 6)
    first = mixed.train.raw("image")[[int(name.rsplit("/", 1)[1]) % 6 == 0 for name in mixed.train.ids]]
    assert torch.equal(first[:, 0], first[:, 1])


def test_photographs_are_turned_upright(image_folder: Folder) -> None:
    def turned(pixels: np.ndarray) -> dict[str, Any]:
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = 6  # turn by 90 degrees
        Image.fromarray(pixels).save(file, "JPEG", exif=exif.tobytes(), quality=100)
        return {"bytes": file.getvalue(), "path": None}

    wide = [pixels[:4] for pixels in colours(30)]  # 4 high, 6 wide
    assert Hub(str(image_folder(train=[turned(pixels) for pixels in wide]))).load().shape == (3, 6, 4)


def test_mixed_sizes_are_refused_and_a_size_mends_it(image_folder: Folder) -> None:
    cells = [png(pixels) for pixels in colours(30)]
    cells[17] = png(colours(1, side=9)[0])
    folder = str(image_folder(train=cells))
    with pytest.raises(BadInput, match=r"9×9 pixels where the first image has 6×6.*--set hub.size=PIXELS"):
        Hub(folder).load()
    assert Hub(folder, size=8).load().shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "got nothing"),
        ({"bytes": b"no image", "path": None}, "bytes that are no image"),
        ({"bytes": None, "path": "gone.png"}, "No such file"),
        ({"bytes": png(colours(1)[0])["bytes"][:70], "path": None}, "expected a whole image"),
        (png(np.zeros((6, 6), np.uint16)), "expected 8 bits per channel"),
    ],
)
def test_broken_images_are_named(image_folder: Folder, cell: dict[str, Any] | None, message: str) -> None:
    cells: list[Any] = [png(pixels) for pixels in colours(30)]
    cells[5] = cell
    with pytest.raises(BadInput, match=f"pictures: image of record 'pictures/train/5'.*{message}"):
        Hub(str(image_folder(train=cells))).load()


def test_a_low_limit_decodes_only_what_it_leaves(image_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(image_folder(train=[png(p) for p in colours(90)], test=[png(p) for p in colours(60, seed=1)]))
    full, opened, really = Hub(folder).load(), [], Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or really(file))
    few = Hub(folder, limit=40).load()
    assert len(opened) == 2 * 80  # once for the head, once for the pixels
    assert len(few.train) + len(few.validation) == len(few.test) == 40
    for part, whole in ((few.train, full.train), (few.validation, full.validation), (few.test, full.test)):
        same = whole.only(part.ids.tolist())
        assert same.ids.tolist() == part.ids.tolist()
        assert torch.equal(same.raw("image"), part.raw("image"))
        assert torch.equal(same.targets, part.targets)


def test_parts_as_the_source_brings_them(image_folder: Folder) -> None:
    cells = [png(pixels) for pixels in colours(40)]
    three = Hub(str(image_folder("three", train=cells, validation=cells[:9], test=cells[:7]))).load()
    assert [len(part) for part in (three.train, three.validation, three.test)] == [40, 9, 7]
    lent = Hub(str(image_folder("lent", train=cells, validation=cells[:9]))).load()
    assert set(lent.test.ids) == {f"lent/validation/{row}" for row in range(9)}
    assert len(lent.train) + len(lent.validation) == 40
    assert len(lent.validation)
    lone = Hub(str(image_folder("lone", test=cells))).load()
    assert len(lone.train) + len(lone.validation) + len(lone.test) == 40
    assert all(name.startswith("lone/test/") for name in lone.train.ids)
    with pytest.raises(BadInput, match=r"splits: got .*, expected one named train"):
        Hub(str(image_folder("none", validation=cells, test=cells))).load()


def test_a_test_set_without_labels_is_not_used(tmp_path: Path) -> None:
    features = datasets.Features(x=datasets.Value("float32"), label=datasets.ClassLabel(names=["no", "yes"]))

    def rows(count: int, hidden: bool = False) -> datasets.Dataset:
        labels = [-1 if hidden else row % 2 for row in range(count)]
        return datasets.Dataset.from_dict({"x": [row / 2 for row in range(count)], "label": labels}, features=features)

    parts = datasets.DatasetDict(train=rows(50), validation=rows(20), test=rows(30, hidden=True))
    parts.save_to_disk(str(tmp_path / "kept"))
    split = Hub(str(tmp_path / "kept")).load()
    assert set(split.test.ids) == {f"kept/validation/{row}" for row in range(20)}
    partly = datasets.DatasetDict(train=rows(50), test=datasets.concatenate_datasets([rows(9), rows(9, hidden=True)]))
    partly.save_to_disk(str(tmp_path / "partly"))
    with pytest.raises(
        BadInput, match="partly: test: label column 'label': got -1, expected class numbers from 0 to 1"
    ):
        Hub(str(tmp_path / "partly")).load()


def test_of_several_class_columns_the_one_by_name(tmp_path: Path) -> None:
    classes = datasets.ClassLabel(names=["a", "b", "c"])
    features = datasets.Features(x=datasets.Value("int32"), fine_label=classes, coarse_label=classes)
    rows = {"x": list(range(60)), "fine_label": [n % 3 for n in range(60)], "coarse_label": [n % 2 for n in range(60)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "two"))
    assert Hub(str(tmp_path / "two"), input="x").load().train.targets.max() == 2
    assert Hub(str(tmp_path / "two"), input="x", label="coarse_label").load().train.targets.max() == 1


def test_a_folder_of_images_per_class(tmp_path: Path) -> None:
    for index, pixels in enumerate(colours(40)):
        place = tmp_path / "zoo" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index}.png")
    split = Hub(str(tmp_path / "zoo")).load()
    assert (split.classes, split.shape) == (("cat", "dog"), (3, 6, 6))


def test_a_folder_of_csv_reads_as_the_table_does(csv: Write) -> None:
    from palimpsest.data.table import Table

    path = csv(people(), "folk/train.csv")
    hub, table = Hub(str(path.parent), id="key").load(), Table(str(path), id="key").load()
    assert hub.fingerprint == table.fingerprint


def test_a_hub_that_cannot_be_reached_is_one_error_at_once(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    started = time.perf_counter()
    with pytest.raises(BadInput, match=r"hub:nobody/nothing: got no connection.*HF_HUB_OFFLINE=1"):
        Hub("nobody/nothing").load()
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("pictures", {"config": "small"}, "BuilderConfig 'small' not found.*--set hub.config=NAME"),
        ("pictures", {"label": "lable"}, "hub.label: got 'lable'.*did you mean 'label'"),
        ("pictures", {"input": "img,label"}, "which is the label"),
        ("empty", {}, "got an empty folder"),
        ("broken", {}, "expected data that `datasets` can open"),
        ("pictures/train.parquet", {}, "open a single CSV or Parquet file as a table"),
        ("nowhere/else", {}, "no such folder"),
        ("", {}, "no such folder"),
    ],
)
def test_what_cannot_be_opened(
    image_folder: Folder, tmp_path: Path, own_cache: Path, path: str, settings: dict[str, Any], message: str
) -> None:
    image_folder(train=[png(pixels) for pixels in colours(30)])
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(PalimpsestError, match=message) as error:
        Hub(str(tmp_path / path) if path else "", **settings).load()
    assert "\n" not in str(error.value)
    assert not [left for left in own_cache.rglob("*") if left.is_file()]
