"""ViTMAE checkpoints that cannot be used, and machines that cannot use them: each says why."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import torch

from palimpsest.catalog import identity, members
from palimpsest.cli import main
from palimpsest.data import _connection
from palimpsest.errors import BadInput
from palimpsest.models.masked_autoencoder import MaskedAutoencoder
from palimpsest.models.vit_mae import VitMae
from palimpsest.reconstruction import Reconstruction
from palimpsest.rng import Rng
from palimpsest.task import Classification
from palimpsest.types import Split
from tests.models.checkpoints import transformers

ROOT = Path(__file__).parents[2]
Made = Callable[..., Path]


def test_without_transformers_it_is_one_line_that_says_what_to_install(
    missing: None, offline: None, digits: Split
) -> None:
    task = Reconstruction.of(digits, 2)
    for call in (lambda: VitMae().task(digits), lambda: VitMae().build(task, Rng(0)), lambda: identity(VitMae())):
        with pytest.raises(
            BadInput,
            match=r"vit_mae: got .*expected the package transformers; pip install 'palimpsest-ml\[generation\]'",
        ):
            call()


def test_without_transformers_an_audit_ends_with_that_line(
    missing: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", "--data", "digits", "--model", "vit_mae", "--forget", "class=0", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "pip install 'palimpsest-ml[generation]'" in " ".join(capsys.readouterr().err.split())


def test_without_transformers_it_is_listed_and_shown(missing: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert members("models")["vit_mae"] is VitMae
    assert main(["list", "models"]) == 0
    assert main(["show", "vit_mae"]) == 0
    shown = capsys.readouterr().out
    assert "vit_mae" in shown
    assert "facebook/vit-mae-base" in shown


def test_the_extra_is_there_and_told_of() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(one.startswith("transformers") for one in extras["generation"])
    for page in ("CHANGELOG.md", "docs/guide.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert "`vit_mae`" in text or "--model vit_mae" in text
        assert "[generation]" in text


def broken(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    if how == "pickled":
        torch.save(safetensors.torch.load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "nan":
        state = safetensors.torch.load_file(weights)
        state["decoder.mask_token"] += float("nan")
        safetensors.torch.save_file(state, weights, {"format": "pt"})
    elif how == "another":
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**settings, "model_type": "vit"}), encoding="utf-8")
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "no scale":
        (folder / "preprocessor_config.json").unlink()
    elif how == "bad scale":
        (folder / "preprocessor_config.json").write_text("[]", encoding="utf-8")


@pytest.mark.parametrize(
    ("how", "changes", "message"),
    [
        ("pickled", {}, "got no safetensors weights, expected model.safetensors .*; load it with"),
        ("cut", {}, "expected weights of ViTMAEForPreTraining"),
        ("nan", {}, "got a NaN or infinite value in decoder.mask_token, expected finite weights"),
        ("another", {}, "got a checkpoint of vit, expected one of vit_mae"),
        ("no config", {}, "expected a config.json of vit_mae"),
        ("no scale", {}, r"got means \(0\.485.*expected one of each for 1 channels"),
        ("bad scale", {}, "expected JSON as transformers writes it"),
        ("", {"norm_pix_loss": True}, "got norm_pix_loss, patches .*, expected a checkpoint that predicts pixels"),
        ("", {"cls": "ViTMAEModel"}, "got no weights for decoder.* and more, expected all weights"),
        ("", {"image_size": 16}, r"got images of shape \(1, 8, 8\), expected \(1, 16, 16\), .*--set hub.size=16"),
        ("", {"patch_size": 8}, "got 0 of 1 patches hidden|expected at least one hidden and one visible"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    made: Made, tmp_path: Path, digits: Split, how: str, changes: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(made(**changes), folder)
    broken(folder, how)
    factory = VitMae(str(folder))
    with pytest.raises(BadInput, match=message):
        factory.build(factory.task(digits), Rng(0))


def test_places_that_are_none(tmp_path: Path, digits: Split) -> None:
    transformers()
    (tmp_path / "file").write_text("", encoding="utf-8")
    for path, message in (
        (str(tmp_path / "file"), "got a file, expected a checkpoint's folder"),
        ("./nowhere", "./nowhere: got no such folder, expected a checkpoint's folder, or a hub name"),
        ("a/b/c", "a/b/c: got no such folder"),
        ("", "vit_mae.path: got no such folder"),
    ):
        with pytest.raises(BadInput, match=re.escape(message)):
            VitMae(path).task(digits)


def test_a_hub_that_cannot_be_reached_is_one_error_at_once(
    offline: None, monkeypatch: pytest.MonkeyPatch, digits: Split
) -> None:
    transformers()
    for unset, message in ((True, "no connection.*HF_HUB_OFFLINE=1"), (False, "nothing downloaded")):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", not unset)
        started = time.perf_counter()
        with pytest.raises(BadInput, match=f"nobody/nothing: got {message}"):
            VitMae("nobody/nothing").task(digits)
        assert time.perf_counter() - started < 5


@pytest.mark.parametrize("kept", [True, False])
def test_a_name_on_the_hub_is_fetched_once_and_without_pickles(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Split, kept: bool
) -> None:
    """A stand-in for the hub's client, with or without the weights of an earlier download. No network is asked."""
    folder, calls = made(), []

    def fetch(name: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert name == "somebody/vit"
        assert not any(fnmatch.fnmatch("pytorch_model.bin", pattern) for pattern in allow_patterns)
        assert all(any(fnmatch.fnmatch(file.name, one) for one in allow_patterns) for file in folder.iterdir())
        calls.append("kept" if local_files_only else "fetched")
        return str(folder if kept or not local_files_only else tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr(_connection, "reach", lambda endpoint, who: calls.append(who))
    assert VitMae("somebody/vit").task(digits).patch == 2
    assert calls == (["kept"] if kept else ["kept", "somebody/vit", "fetched"])


def test_another_task_and_other_masks_are_refused(made: Made, digits: Split) -> None:
    factory = VitMae(str(made()))
    task = factory.task(digits)
    with pytest.raises(BadInput, match="vit_mae: got the task classification, expected reconstruction of images"):
        factory.build(Classification.of(digits), Rng(0))
    with pytest.raises(BadInput, match=r"got images of shape \(1, 8, 8\) in patches of 4 pixels"):
        factory.build(MaskedAutoencoder().task(digits), Rng(0))
    model, image = factory.build(task, Rng(0)), torch.rand(2, 1, 8, 8)
    uneven = torch.zeros(2, 16, dtype=torch.bool)
    uneven[0, :3] = uneven[1, :4] = True
    for mask, message in ((uneven, "records that hide 3, 4 patches"), (uneven[:, 1:], "a mask of shape")):
        with pytest.raises(BadInput, match=message):
            model(image, mask)
