"""Anyone's weights are read without running their code, fit exactly or are refused with the reason."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from palimpsest.errors import BadInput
from palimpsest.models.files import load_into, read_weights, write_weights
from palimpsest.models.linear import Linear
from palimpsest.models.mlp import Mlp
from palimpsest.rng import Rng
from palimpsest.task import Classification
from tests.models.nets import net, same


class Net(nn.Module):
    """A model as a user would write it, its layers under one name."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def lightning(state: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed(state, "model."),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": {"lr": 0.1, "layers": [1, 2]},
    }


SAVED: dict[str, tuple[str, Callable[[Any, Path], Any], Callable[[dict[str, Tensor]], Any]]] = {
    "safetensors": ("w.safetensors", safetensors.torch.save_file, dict),
    "state dict": ("w.pt", torch.save, dict),
    "legacy pickle": ("w.pth", save_legacy, dict),
    "parameters": ("w.bin", torch.save, lambda s: {n: nn.Parameter(v, v.is_floating_point()) for n, v in s.items()}),
    "DataParallel": ("w.pt", torch.save, lambda s: prefixed(s, "module.")),
    "compiled and parallel": ("w.pt", torch.save, lambda s: prefixed(s, "module._orig_mod.")),
    "Lightning": ("w.ckpt", torch.save, lightning),
    "under model": ("w.pth", torch.save, lambda s: {"model": s, "optimizer": {"lr": 0.1}, "epoch": 3}),
    "under model_state_dict": (
        "w.tar",
        torch.save,
        lambda s: {"model_state_dict": prefixed(s, "module."), "loss": 0.5},
    ),
    "misnamed": ("w.pt", safetensors.torch.save_file, dict),
}


@pytest.mark.parametrize("how", SAVED)
def test_every_usual_file_is_read(tmp_path: Path, how: str) -> None:
    name, save, wrap = SAVED[how]
    state = net().state_dict()
    save(wrap(state), tmp_path / name)
    read = read_weights(tmp_path / name)
    assert same(read, state)
    assert not any(value.requires_grad for value in read.values())
    model = net(1)
    load_into(model, read, name)
    assert same(model.state_dict(), state)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "my_own.safetensors"])
def test_a_checkpoint_folder_is_read(tmp_path: Path, name: str) -> None:
    state = net().state_dict()
    save = safetensors.torch.save_file if name.endswith(".safetensors") else torch.save
    save(dict(state), tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    assert same(read_weights(tmp_path), state)
    assert same(read_weights(str(tmp_path)), state)


def shards(folder: Path, state: dict[str, Tensor], ending: str = "safetensors") -> Path:
    names = sorted(state)
    stem, save = ("model", safetensors.torch.save_file) if ending == "safetensors" else ("pytorch_model", torch.save)
    mapping = {}
    for index, part in enumerate((names[:3], names[3:])):
        file = f"{stem}-0000{index + 1}-of-00002.{ending}"
        save({name: state[name] for name in part}, folder / file)
        mapping |= dict.fromkeys(part, file)
    path = folder / f"{stem}.{ending}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": mapping}))
    return path


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_checkpoint_in_several_files_is_read(tmp_path: Path, ending: str) -> None:
    state = net().state_dict()
    shards(tmp_path, state, ending)
    assert same(read_weights(tmp_path), state)


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    index = shards(tmp_path, net().state_dict())
    content = json.loads(index.read_text())
    first = tmp_path / "model-00001-of-00002.safetensors"
    kept = first.read_bytes()
    first.unlink()
    with pytest.raises(BadInput, match=r"no file 'model-00001-of-00002.safetensors' beside it"):
        read_weights(tmp_path)
    first.write_bytes(kept)
    index.write_text(json.dumps({"weight_map": content["weight_map"] | {"9.weight": first.name}}))
    with pytest.raises(BadInput, match=r"got no tensor '9\.weight'"):
        read_weights(tmp_path)
    outside = tmp_path.parent / "outside.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(1)}, outside)
    for text in (json.dumps({"weight_map": {"w": "../outside.safetensors"}}), "{", "[]", '{"weight_map": 3}'):
        index.write_text(text)
        with pytest.raises(BadInput, match=r"beside it|damaged"):
            read_weights(tmp_path)


def test_a_folder_without_or_with_too_many_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a folder with 0 \.safetensors files.*name the file itself"):
        read_weights(tmp_path)
    for name in ("a", "b"):
        safetensors.torch.save_file({"w": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(BadInput, match=r"a folder with 2 \.safetensors files"):
        read_weights(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_floats_become_float32_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.tensor([1 / 3, -1e-3, 1.5, 0.0, 416.0]).to(dtype)
    torch.save({"w": values, "steps": torch.tensor(3)}, tmp_path / "w.pt")
    read = read_weights(tmp_path / "w.pt")
    assert read["w"].dtype == torch.float32
    assert torch.equal(read["w"], torch.tensor([float(v) for v in values]))
    assert torch.equal(read["w"].to(dtype).view(torch.uint8), values.view(torch.uint8))
    assert read["steps"].dtype == torch.int64


class Evil:
    """What a hostile file does when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def test_a_pickle_that_is_more_than_weights_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil(mark)))
    (tmp_path / "hidden.pt").write_bytes(pickle.dumps({"state_dict": {}, "x": Evil(mark)}, protocol=2))
    torch.save(Evil(mark), tmp_path / "zip.pt")
    save_legacy(Evil(mark), tmp_path / "legacy.pt")
    torch.save(net(), tmp_path / "module.pt")
    torch.save({"state_dict": net().state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "args.ckpt")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(BadInput, match=r"a pickle that is more than weights|damaged") as error:
            read_weights(path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400
    assert not mark.exists()
    with pytest.raises(BadInput, match=r"more than weights \(argparse\.Namespace\).*torch\.save\(model\.state_dict"):
        read_weights(tmp_path / "args.ckpt")


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is giving TorchScript up
        torch.jit.trace(net().eval(), torch.zeros(2, 4)).save(str(tmp_path / "script.pt"))
    with pytest.raises(BadInput, match=r"got a TorchScript archive.*torch\.save\(model\.state_dict"):
        read_weights(tmp_path / "script.pt")


@pytest.mark.parametrize("how", ["safetensors", "state dict", "legacy pickle"])
@pytest.mark.parametrize("left", [0, 1, 10, 0.5, -1, -20])
def test_a_truncated_file_is_refused(tmp_path: Path, how: str, left: float) -> None:
    name, save, wrap = SAVED[how]
    path = tmp_path / name
    save(wrap(net().state_dict()), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if 0 < left < 1 else int(left)])
    with pytest.raises(BadInput, match=r"damaged|an empty file") as error:
        read_weights(path)
    assert "\n" not in str(error.value)


def test_a_flipped_bit_in_a_zip_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    state = net().state_dict()
    torch.save(state, path)
    data = bytearray(path.read_bytes())
    data[data.index(state["0.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(data)
    assert not same(torch.load(path, weights_only=True), state)  # torch itself does not look
    with pytest.raises(BadInput, match=r"a damaged file .* does not have its checksum"):
        read_weights(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello, these are no weights")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    np.savez(tmp_path / "arrays.npz", w=np.zeros(3))
    for path in tmp_path.iterdir():
        with pytest.raises(BadInput, match=r"another or a damaged format|a zip archive without weights"):
            read_weights(path)
    with pytest.raises(BadInput, match=r"got No such file or directory, expected a .safetensors file"):
        read_weights(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ([torch.zeros(1)], "a list"),
        (torch.zeros(3), "a Tensor"),
        ({}, "an empty dict"),
        ({"epoch": 3, "best": 0.5}, "a dict with epoch, best"),
        ({"model": {"a": 3}}, "a dict with model"),
        ({1: torch.zeros(1)}, "a dict with 1"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "a dict with a, b, c and 1 more"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any, got: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(BadInput, match=f"got {got}, expected a state dict, alone or under state_dict"):
        read_weights(tmp_path / "w.pt")


# fitting


@pytest.mark.parametrize("prefix", ["", "model.", "net.", "encoder.model."])
def test_a_prefix_common_to_all_names_does_not_matter_on_either_side(prefix: str) -> None:
    state = net().state_dict()
    bare, wrapped = net(1), Net()
    load_into(bare, prefixed(state, prefix), "w")
    load_into(wrapped, prefixed(state, prefix), "w")
    assert same(bare.state_dict(), state)
    assert same(wrapped.model.state_dict(), state)


def test_what_a_training_module_keeps_beside_the_model_is_left(tmp_path: Path) -> None:
    state = net().state_dict()
    model = net(1)
    load_into(model, prefixed(state, "model.") | {"loss.pos_weight": torch.ones(2)}, "w")
    assert same(model.state_dict(), state)


def test_two_copies_of_the_model_in_one_file_are_refused() -> None:
    state = net().state_dict()
    with pytest.raises(BadInput, match=r"got the model twice, under ema\., model\., expected one copy"):
        load_into(net(), prefixed(state, "model.") | prefixed(state, "ema."), "w")


def test_a_part_of_a_larger_model_is_not_mistaken_for_the_model() -> None:
    larger = prefixed(net().state_dict(), "encoder.") | {"head.weight": torch.zeros(5, 2)}
    with pytest.raises(BadInput, match=r"missing 0.weight.*unexpected encoder.0.weight"):
        load_into(net(), larger, "w")


def refused(model: nn.Module, state: dict[str, Tensor], match: str) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(BadInput, match=match) as error:
        load_into(model, state, "theirs.pt")
    assert str(error.value).startswith("theirs.pt: got ")
    assert "\n" not in str(error.value)
    assert same(model.state_dict(), before), "half loaded"


def test_missing_and_unexpected_tensors_are_named_and_nothing_is_loaded() -> None:
    state = {name: value + 1 for name, value in net().state_dict().items()}
    names = list(state)
    refused(net(), {n: state[n] for n in names[:-1]}, r"got missing 2\.bias, expected the model's tensors")
    refused(net(), state | {"3.weight": torch.zeros(1)}, r"got unexpected 3\.weight, expected")
    refused(net(), {"3.weight": torch.zeros(1)}, r"missing 0\.weight, 0\.bias, 1\.weight and 6 more; unexpected")
    refused(net(), {}, "missing")


def test_other_shapes_are_named_and_nothing_is_loaded() -> None:
    state = {name: value + 1 for name, value in net().state_dict().items()}
    state |= {"2.weight": torch.zeros(7, 3), "2.bias": torch.zeros(7)}
    expected = r"shapes 2\.weight \(7, 3\) for \(2, 3\), 2\.bias \(7,\) for \(2,\), .* number of classes"
    refused(net(), state, expected)


def test_weights_that_are_no_floats_or_not_finite_are_refused() -> None:
    state = {name: value + 1 for name, value in net().state_dict().items()}
    refused(net(), state | {"2.bias": torch.zeros(2, dtype=torch.int8)}, r"2\.bias as torch\.int8, .*unquantised")
    for value in (float("nan"), float("inf")):
        refused(net(), state | {"2.bias": torch.tensor([0.0, value])}, r"a NaN or infinite value in 2\.bias")


def test_weights_of_a_model_of_the_catalog_fit_it_again(tmp_path: Path, digits_task: Classification) -> None:
    model = Mlp(width=4).build(digits_task, Rng(0))
    write_weights(tmp_path / "w.safetensors", model)
    other = Mlp(width=4).build(digits_task, Rng(1))
    load_into(other, read_weights(tmp_path / "w.safetensors"), "w")
    assert same(other.state_dict(), model.state_dict())
    torch.save(nn.DataParallel(model).state_dict(), tmp_path / "w.pt")
    load_into(other, read_weights(tmp_path / "w.pt"), "w")
    assert same(other.state_dict(), model.state_dict())


def test_weights_of_a_bare_network_are_refused_with_what_to_do(digits_task: Classification) -> None:
    """Which normalisation they were trained with cannot be known, so none is made up."""
    model = Linear().build(digits_task, Rng(0))
    refused(model, prefixed(model.network.state_dict(), "") | {}, "missing mean, std.*pass it as my_module:make")


def test_loading_keeps_layout_types_and_identity_of_parameters() -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    weight, place = model.weight, model.weight.data_ptr()
    state = {"weight": torch.randn(4, 3, 3, 3, dtype=torch.float64), "bias": torch.zeros(4)}
    load_into(model, state, "w")
    assert model.weight is weight
    assert model.weight.data_ptr() == place
    assert model.weight.dtype == torch.float32
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(model.weight, state["weight"].float())
