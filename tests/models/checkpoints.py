"""Tiny ViTMAE checkpoints with random weights, as `save_pretrained` writes them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from palimpsest.rng import Rng

WHY = "needs transformers, of the extra `generation`"
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "decoder_num_attention_heads": 2,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 32,
    "initializer_range": 0.2,
}


def transformers() -> Any:
    """The package; skips the test where it is missing."""
    return pytest.importorskip("transformers", reason=WHY)


def tiny(folder: Path, seed: int = 0, cls: str = "ViTMAEForPreTraining", **changes: Any) -> Path:
    """A checkpoint of digits' shape, unless the changes say otherwise, in this folder. Images of one channel get their scale."""
    package = transformers()
    config = package.ViTMAEConfig(**{**SIZES, **changes})
    with Rng(seed).ambient():
        model = getattr(importlib.import_module("transformers"), cls)(config)
    package.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    if config.num_channels == 1:
        scale = {"image_mean": [0.5], "image_std": [0.25]}
        (folder / "preprocessor_config.json").write_text(json.dumps(scale), encoding="utf-8")
    return folder
