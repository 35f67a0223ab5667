"""What small sources are made of."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def png(pixels: np.ndarray, mode: str | None = None) -> dict[str, Any]:
    """An image cell as `datasets` stores it."""
    picture, file = Image.fromarray(pixels), io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def colours(count: int, side: int = 6, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def people(count: int = 120) -> str:
    """Numbers, a truth value, a category, an owner and a text label; ages have a fraction only far down."""
    lines = ["key,age,married,town,owner,class"]
    for row in range(count):
        age = 20 + row % 50 + (0.5 if row > 100 else 0)
        town = ("Rome", "Oslo", "Bonn")[row % 3]
        owner, label = f"{row % 9:03d}", "yes" if row % 2 else "no"
        lines.append(f"p{row:03d},{age:g},{'true' if row % 4 else 'false'},{town},{owner},{label}")
    return "\n".join(lines) + "\n"
