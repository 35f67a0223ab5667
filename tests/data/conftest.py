"""Small sources of every sort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("PALIMPSEST_CACHE", str(cache))
    return cache


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of Parquet files, one per split, as hub repositories have them."""

    def made(name: str = "pictures", **splits: list[dict[str, Any] | None]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for split, cells in splits.items():
            images = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
            labels = pa.array([index % 3 for index in range(len(cells))], pa.int64())
            table = pa.table({"img": images, "label": labels})
            features = '{"img": {"_type": "Image"}, "label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}'
            table = table.replace_schema_metadata({"huggingface": f'{{"info": {{"features": {features}}}}}'})
            pq.write_table(table, folder / f"{split}.parquet", row_group_size=7)
        return folder

    return made


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    """A file with this text."""

    def made(text: str, name: str = "people.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return made
