"""An artifact for the tests of the store."""

from __future__ import annotations

from typing import Any

import torch

from palimpsest.store import Store

SPEC = {"model": "mlp", "seed": 0}
TENSORS = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(7)}


def put(store: Store, spec: dict[str, Any] | None = None, holds: tuple[str, ...] = ("a", "b")) -> None:
    store.put("model", spec or SPEC, TENSORS, {"epoch": 3, "loss": 0.25}, holds)
