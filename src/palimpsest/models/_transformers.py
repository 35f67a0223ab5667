"""Checkpoints of the package transformers: found, read without pickle, and told apart by what is in them."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from palimpsest.data._connection import hub_folder
from palimpsest.errors import BadInput, told
from palimpsest.models.files import hash_file
from palimpsest.store import digest

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""One of these has to be in a folder; pickled weights are never read."""
CONFIG = "config.json"
WANTED = (CONFIG, "model*.safetensors", WEIGHTS[1])
"""What is fetched of a name on the hub."""
NOT_THE_MODEL = {"_name_or_path", "architectures", "dtype", "mask_ratio", "torch_dtype", "transformers_version"}
"""Entries of a configuration that make no other model: where it came from, and what is set here."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder of `save_pretrained`, or a name on the hub, of one class of transformers.

    path: as the user gave it. who: whose setting it is. extra: what to install for it. model: the class. kind: its `model_type`.
    more: further files that are read.
    """

    path: str
    who: str
    extra: str
    model: str
    kind: str
    more: tuple[str, ...] = ()

    def package(self) -> Any:
        """The package, imported only when it is used. Raises BadInput where it is missing."""
        try:
            return importlib.import_module("transformers")
        except ImportError as error:
            do = f"pip install 'palimpsest-ml[{self.extra}]'"
            raise BadInput(self.who, got=error, expected="the package transformers", do=do) from error

    def folder(self) -> Path:
        """Where it is, downloaded where it is a name on the hub that was not used before. Raises BadInput without safetensors."""
        return self._place

    @cached_property
    def _place(self) -> Path:
        self.package()  # first: nothing is downloaded in vain
        found = hub_folder(
            self.path, (*WANTED, *self.more), WEIGHTS, "a checkpoint's folder, or a hub name", f"{self.who}.path"
        )
        if not any((found / name).exists() for name in WEIGHTS):
            do = f"load it with {self.model} where you trust it, and save_pretrained it to a folder"
            raise BadInput(self.path, got="no safetensors weights", expected=" or ".join(WEIGHTS), do=do)
        return found

    def config(self) -> Any:
        """Its configuration, as transformers reads it. Raises BadInput for one of another kind of model."""
        folder = self.folder()
        try:
            kind = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type")
            config = getattr(self.package(), self.model).config_class.from_pretrained(str(folder))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BadInput(self.path, got=told(error), expected=f"a config.json of {self.kind}") from error
        if kind != self.kind:
            raise BadInput(self.path, got=f"a checkpoint of {kind}", expected=f"one of {self.kind}")
        return config

    def weights(self, do: str = "", **changes: Any) -> Any:
        """The model with its weights, as float32. do: what to do where some are missing. changes: of the configuration.

        Raises BadInput for weights that cannot be read, are missing, or are not finite.
        """
        transformers, wrong = self.package(), (OSError, ValueError, RuntimeError, KeyError, SafetensorError)
        try:
            with _quiet(transformers.utils.logging):
                model, report = getattr(transformers, self.model).from_pretrained(
                    str(self.folder()), local_files_only=True, use_safetensors=True, output_loading_info=True, **changes
                )
        except wrong as error:
            raise BadInput(self.path, got=told(error), expected=f"weights of {self.model}") from error
        if missing := sorted(map(str, report["missing_keys"])):
            got = f"no weights for {', '.join(missing[:3])}" + (" and more" if len(missing) > 3 else "")
            raise BadInput(self.path, got=got, expected=f"all weights of {self.model}", do=do)
        broken = [name for name, value in model.state_dict().items() if not bool(torch.isfinite(value).all())]
        if broken:
            raise BadInput(self.path, got=f"a NaN or infinite value in {broken[0]}", expected="finite weights")
        return model.float()

    def spread(self, ending: str) -> float:
        """The standard deviation of the tensor whose name ends so."""
        for file in sorted(self.folder().glob("model*.safetensors")):
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 - no mapping
                    if name.endswith(ending):
                        return float(stored.get_tensor(name).float().std())
        raise BadInput(self.path, got=f"no {ending}", expected=f"weights of {self.model}")

    def identity(self, **told_too: Any) -> Mapping[str, Any]:
        """Its hash in the place of its path: a moved one is the same model, an edited one another."""
        settings = {key: value for key, value in self.config().to_dict().items() if key not in NOT_THE_MODEL}
        content = {"config": settings, **told_too, "weights": hash_file(self.folder())}
        return {"path": digest(content), "transformers": importlib.metadata.version("transformers")}


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without the bars and reports of transformers; what is wrong is told by an error."""
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
