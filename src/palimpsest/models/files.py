"""Weights in files: reading anyone's without running their code, fitting them to a module, writing ours.

Read are safetensors, checkpoints of torch, Lightning and Hugging Face, and folders of these. A file is told by its first
bytes, not by its name. Pickled files are read with `weights_only=True` alone: one that holds more than tensors and plain
Python values is refused, never run.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError  # the name of torch.load's error; nothing is unpickled here
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from palimpsest.disk import disk_errors, write_atomically
from palimpsest.errors import BadInput

FORMATS = "a .safetensors file, a .pt, .pth, .bin or .ckpt file that holds a state dict, or a folder with one of them"
CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Under which name a training script's checkpoint keeps the model's tensors, beside its optimiser and counters."""
TRAINERS = ("model.", "module.", "net.", "network.")
"""Under which prefix a training module keeps the model, beside a loss or metrics with tensors of their own."""
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that DataParallel, torch.compile and Lightning put before every name."""
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What a Hugging Face checkpoint folder is read from, first found first."""
SAVE_AGAIN = "save only the weights: torch.save(model.state_dict(), path)"


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors in a file or folder by name, on the CPU, wrappers' prefixes taken off.

    Floats narrower than 32 bits (float16, bfloat16, float8) become float32, which holds each of their values exactly; every
    other type stays. Raises BadInput for a missing, empty, damaged or foreign file, a TorchScript archive, a pickle that
    is more than weights, and a checkpoint in which no state dict is found. Damage inside a safetensors file's tensor
    bytes cannot be seen: that format has no checksum.
    """
    place = Path(path).expanduser()
    try:
        state = _read_folder(place) if place.is_dir() else _read_file(place)
    except OSError as error:
        raise BadInput(str(place), got=error.strerror or error, expected=FORMATS, do="check the path") from None
    return {name: _widened(value) for name, value in _unwrapped(state).items()}


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copies `state` into the module's parameters and buffers, all of them or none.

    Names must match exactly once the prefix that all names of a side share is taken off both; or the module's names are found
    whole under one of `TRAINERS`, and what lies beside it (a loss with weights) is left. `where` names the source in
    errors. float64 is rounded to the parameter's type. Raises BadInput that names the first tensors which are
    missing, unexpected, of another shape, or not finite (buffers included).
    """
    own = module.state_dict()
    found = _aligned(own, state, where)
    unlike = [
        f"{name} {tuple(found[name].shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if found[name].shape != value.shape
    ]
    if unlike:
        do = "check the model's settings and its number of classes"
        raise BadInput(where, got=f"shapes {_some(unlike)}", expected="the model's shapes", do=do)
    for name, value in own.items():
        if found[name].is_floating_point() != value.is_floating_point():
            got = f"{name} as {found[name].dtype}"
            raise BadInput(where, got=got, expected=f"{value.dtype}", do="save unquantised weights")
    broken = not_finite(found, own)
    if broken:
        got = f"a NaN or infinite value in {_some(broken)}"
        raise BadInput(where, got=got, expected="finite weights", do="use a checkpoint from before it diverged")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(found[name])


def write_weights(path: Path | str, module: nn.Module, metadata: Mapping[str, str] | None = None) -> None:
    """Writes parameters and buffers as safetensors, the file whole or not at all; `metadata` goes into its header.

    Raises BadInput for another ending or a folder's name, StoreError for a full disk or a folder that may not be written to.
    """
    place = Path(path).expanduser()
    if place.suffix != ".safetensors" or place.is_dir():
        raise BadInput(str(path), got=place.name, expected="a file name that ends in .safetensors")
    # a copy each, because safetensors refuses tensors that share memory (tied weights)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    data = safetensors.torch.save(state, {"format": "pt", "written_by": "palimpsest-ml", **(metadata or {})})
    with disk_errors(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, data)


def not_finite(state: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors in `state` (parameters and buffers) that are NaN or infinite where those in `before` are finite.

    What a model is built with, such as a mask of -inf in a buffer, is no fault.
    """
    found = []
    for name, value in state.items():
        bad = ~torch.isfinite(value)
        if name in before and before[name].shape == value.shape:
            bad &= torch.isfinite(before[name]).to(bad.device)
        if bool(bad.any()):
            found.append(name)
    return found


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, as 64 hexadecimal digits; the order of the names does not matter."""
    hasher = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        hasher.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def hash_file(path: Path | str) -> str:
    """`hash_weights` of what `read_weights` finds there, read again only where names, sizes or times of files have changed."""
    place = Path(path).expanduser()
    files = sorted(part for part in (place.iterdir() if place.is_dir() else [place]) if part.is_file())
    return _hash_of(str(path), tuple((part.name, part.stat().st_size, part.stat().st_mtime_ns) for part in files))


@lru_cache(maxsize=16)
def _hash_of(path: str, stamp: tuple[tuple[str, int, int], ...]) -> str:
    return hash_weights(read_weights(path))


def _read_file(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise BadInput(str(path), got="an empty file", expected=FORMATS, do="copy or save it again")
    if head[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        return _read_safetensors(path)
    if head[:2] == b"PK" or head[:1] == b"\x80":  # torch: a zip archive, formerly a pickle
        return _state_in(path, _read_torch(path))
    raise BadInput(str(path), got="a file of another or a damaged format", expected=FORMATS)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(safetensors.torch.load_file(path))
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch remarks on old pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except BadInput:
        raise
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        got = f"a pickle that is more than weights ({named[1]})" if named else "a pickle that is damaged or no weights"
        raise BadInput(str(path), got=got, expected="tensors and plain values only", do=SAVE_AGAIN) from error
    except Exception as error:  # bytes that are damaged make torch raise anything
        raise _damaged(path, error) from error


def _check_archive(path: Path) -> None:
    """Refuses TorchScript and other archives, and bytes that do not have their checksums (torch.load does not look)."""
    with zipfile.ZipFile(path) as archive:
        names = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
        broken = archive.testzip()
    if "constants.pkl" in names:
        raise BadInput(str(path), got="a TorchScript archive", expected=FORMATS, do=SAVE_AGAIN)
    if "data.pkl" not in names:
        raise BadInput(str(path), got="a zip archive without weights", expected=FORMATS, do=SAVE_AGAIN)
    if broken:
        raise _damaged(path, ValueError(f"{broken} does not have its checksum"))


def _damaged(path: Path, error: Exception) -> BadInput:
    reason = (str(error) or type(error).__name__).splitlines()[0][:150]
    return BadInput(str(path), got=f"a damaged file ({reason})", expected="a whole one", do="copy or save it again")


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return _read_shards(folder / name) if name.endswith(".index.json") else _read_file(folder / name)
    alone = sorted(folder.glob("*.safetensors"))
    if len(alone) != 1:
        got = f"a folder with {len(alone)} .safetensors files and none of the usual names"
        raise BadInput(str(folder), got=got, expected="one of " + ", ".join(FOLDER_FILES), do="name the file itself")
    return _read_file(alone[0])


def _read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors that a Hugging Face index names, each from the file that the index gives it."""
    try:
        mapping = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(mapping.values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(index, error) from error
    state: dict[str, Tensor] = {}
    for shard in shards:
        place = index.parent / shard
        if Path(shard).name != shard or not place.is_file():
            raise BadInput(str(index), got=f"no file {shard!r} beside it", expected="every file that it names")
        held = _read_file(place)
        wanted = [name for name, file in mapping.items() if file == shard]
        absent = [name for name in wanted if name not in held]
        if absent:
            raise BadInput(str(place), got=f"no tensor {absent[0]!r}", expected=f"the tensors that {index.name} names")
        state |= {name: held[name] for name in wanted}
    return state


def _state_in(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict in what torch.load returned: the whole, or one entry of a training script's checkpoint."""
    if isinstance(content, Mapping):
        for candidate in (content, *(content[name] for name in CONTAINERS if name in content)):
            if isinstance(candidate, Mapping) and candidate and all(map(_is_weight, candidate.items())):
                return dict(candidate)
        got = f"a dict with {_some(map(str, content))}" if content else "an empty dict"
    else:
        got = f"a {type(content).__name__}"
    expected = f"a state dict, alone or under {', '.join(CONTAINERS)}"
    raise BadInput(str(path), got=got, expected=expected, do=SAVE_AGAIN)


def _is_weight(entry: tuple[Any, Any]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor)


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in WRAPPERS if state and all(name.startswith(p) for name in state)), ""):
        state = _under(state, prefix)
    return state


def _widened(value: Tensor) -> Tensor:
    value = value.detach()
    narrow = value.is_floating_point() and value.element_size() < 4
    return value.float() if narrow else value


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _aligned(own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """`state` under the module's names. Raises BadInput where it does not cover them, or covers them twice."""
    shared = _shared_prefix(own)
    bare = _under(own, shared)
    prefixes = {_shared_prefix(state)} | {name[: dot.end()] for name in state for dot in re.finditer(r"\.", name)}
    whole = sorted(prefix for prefix in prefixes if _under(state, prefix).keys() == bare.keys())
    if len(whole) > 1:
        got = f"the model twice, under {_some(whole)}"
        raise BadInput(where, got=got, expected="one copy of the model", do="save the one to audit")
    if whole and (whole[0] == _shared_prefix(state) or whole[0] in TRAINERS):
        return {shared + name: value for name, value in _under(state, whole[0]).items()}
    missing = [name for name in own if name not in state]
    extra = [name for name in state if name not in own]
    parts = [f"{label} {_some(names)}" for label, names in (("missing", missing), ("unexpected", extra)) if names]
    if bare.keys() - {"mean", "std"} == {"network." + name for name in state}:
        do = "these weights are a bare network's; pass it as my_module:make, normalising as it was trained"
    else:
        do = "name the model and the settings that these weights were trained with"
    raise BadInput(where, got="; ".join(parts), expected="the model's tensors, by name", do=do)


def _shared_prefix(names: Iterable[str]) -> str:
    """The longest prefix ending in a dot that all names have; often empty."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = itertools.takewhile(lambda level: len(set(level)) == 1, levels)
    return "".join(level[0] + "." for level in shared)


def _some(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest
