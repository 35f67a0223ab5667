"""GPT-2: of a checkpoint, or of a size of one's own; trained whole, or by low-rank adapters."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from palimpsest.catalog import name_of, setting
from palimpsest.data._tokens import FILE
from palimpsest.errors import BadInput
from palimpsest.language import TOKENS, Language, as_language
from palimpsest.models._gpt2 import Answering
from palimpsest.models._transformers import Checkpoint
from palimpsest.models.base import Model
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import Split


@dataclass(frozen=True)
class Gpt2(Model):
    """Radford et al. 2019, as `transformers.GPT2LMHeadModel`; it answers with the word that it thinks comes after a text.

    Needs `pip install 'palimpsest-ml[text]'`, and text that is read as tokens (`--set hub.tokens=128`). With `path` it is a
    checkpoint, whose tokenizer the data must be read with (`--set hub.tokenizer=PATH` too): training and retraining go on from
    there, so that "retrained" is tuned without the forgotten records, and exact only where those had no part in the checkpoint.
    Without, it has `layers` layers and learns from nothing: the poisoning paper's GPT-2 has 24 layers of width 1,024.

    With `lora` above 0 all weights but low-rank adapters of each layer's attention stay as they are (Hu et al. 2022, by the package
    peft): what is trained, unlearned and attacked is then the adapters.
    """

    about = "GPT-2 on text read as tokens, of a checkpoint or from nothing, whole or with LoRA"
    solves: ClassVar[str] = Language.name

    path: str = setting(
        "", "a folder written by `save_pretrained`, or a name on the hub; empty: from nothing", source="the user"
    )
    layers: int = setting(4, "layers, from nothing", source="ours; 12 in GPT-2", least=1)
    heads: int = setting(4, "heads of attention, from nothing", source="ours; 12 in GPT-2", least=1)
    width: int = setting(256, "width, from nothing; a multiple of the heads", source="ours; 768 in GPT-2", least=1)
    dropout: float = setting(0.1, "dropout of embeddings, attention and layers", source="GPT-2", least=0, below=1)
    writing: float = setting(
        0.0,
        "weight of the texts' own tokens in the loss, beside the answer's",
        source="ours: instruction tuning",
        least=0,
    )
    lora: int = setting(0, "rank of the adapters; 0: all weights are trained", source="Hu et al. 2022", least=0)

    def task(self, split: Split) -> Language:
        """Raises BadInput where transformers is missing, the checkpoint cannot be used, or the records are no tokens for it."""
        config, spread = self._config(), 0.0
        if self.path:
            self._check_tokens(split, config)
            spread = self._source.spread("wte.weight")
        found = Language.posed(split, config.n_embd, self.writing, spread or config.initializer_range)
        self._check(config, found)
        return found

    def network(self, task: Task) -> nn.Module:
        task = as_language(task, name_of(self))
        config = self._config()
        self._check(config, task)
        if self.path:
            inner = self._source.weights("", **self._drops())
        else:
            config.update({"vocab_size": task.vocabulary, "n_positions": task.shape[0]})
            inner = self._source.package().GPT2LMHeadModel(config)
        return Answering(_adapted(inner, self.lora) if self.lora else inner, task.words)

    def build(self, task: Task, rng: Rng) -> nn.Module:
        """The model, (n, length) tokens → (n, classes) logits; of a checkpoint the same from every stream, adapters aside."""
        with rng.child("initial-weights").ambient():
            return self.network(task)

    def untrained(self, task: Task, rng: Rng) -> nn.Module:
        """The same shape with weights drawn as before any training."""
        with rng.child("initial-weights").ambient():
            model = self.network(task)
            inner: Any = model.inner
            fresh = self._source.package().GPT2LMHeadModel(inner.config)
        drawn = dict(fresh.named_parameters())
        for name, parameter in inner.named_parameters():
            if (plain := name.replace(".base_layer", "")) in drawn:
                parameter.data.copy_(drawn[plain])
        return model

    def identity_extra(self) -> dict[str, Any]:
        """The hash of the checkpoint in the place of its path: a moved one is the same model, an edited one another."""
        adapters = {"peft": _peft().__version__} if self.lora else {}
        known = self._source.identity() if self.path else {"transformers": self._source.package().__version__}
        return {**known, **adapters}

    @property
    def _source(self) -> Checkpoint:
        return Checkpoint(self.path, "gpt2", "text", "GPT2LMHeadModel", "gpt2", (FILE,))

    def _config(self) -> Any:
        """The `GPT2Config` of the checkpoint, or of the sizes that are set."""
        if self.path:
            return self._source.config()
        if self.lora:
            do = "set gpt2.path, or leave gpt2.lora out"
            raise BadInput(
                "gpt2.lora", got="adapters of a model that has learnt nothing", expected="a checkpoint", do=do
            )
        if self.width % self.heads:
            got = f"{self.width} and {self.heads} heads"
            raise BadInput("gpt2.width", got=got, expected="a multiple of the heads")
        sizes = {"n_layer": self.layers, "n_head": self.heads, "n_embd": self.width}
        none = {"bos_token_id": None, "eos_token_id": None}
        return self._source.package().GPT2Config(**sizes, **self._drops(), **none)

    def _drops(self) -> dict[str, float]:
        return {f"{name}_pdrop": self.dropout for name in ("embd", "attn", "resid")}

    def _check_tokens(self, split: Split, config: Any) -> None:
        """Whether the records were read with the checkpoint's own tokenizer; without one at hand, whether they could have been."""
        if split.kind != TOKENS:
            return
        file, context = self._source.folder() / FILE, split.train.context
        do = f"read text with --set hub.tokenizer={self.path}"
        if file.is_file():
            if json.loads(file.read_text(encoding="utf-8"))["model"] != context["tokenizer"]["model"]:
                raise BadInput(self.path, got="tokens of another tokenizer", expected=f"those of its {FILE}", do=do)
        elif context["vocabulary"] != config.vocab_size:
            got = f"tokens of a vocabulary of {context['vocabulary']}"
            raise BadInput(self.path, got=got, expected=f"one of {config.vocab_size}", do=do)

    def _check(self, config: Any, task: Language) -> None:
        """Whether a checkpoint has tokens and places for these records."""
        if self.path and task.vocabulary > config.vocab_size:
            got, expected = f"tokens of a vocabulary of {task.vocabulary}", f"at most {config.vocab_size}"
            raise BadInput(self.path, got=got, expected=expected, do=f"read text with --set hub.tokenizer={self.path}")
        if self.path and task.shape[0] > config.n_positions:
            got, expected = f"{task.shape[0]} tokens a text", f"at most {config.n_positions}"
            raise BadInput(self.path, got=got, expected=expected, do="set hub.tokens lower")


def _adapted(inner: Any, rank: int) -> Any:
    """The model with adapters of this rank in each layer's attention, which alone are trained."""
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["c_attn"], fan_in_fan_out=True)
    return peft.inject_adapter_in_model(config, inner)


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError:
        do = "pip install 'palimpsest-ml[text]'"
        raise BadInput("gpt2.lora", got="no package peft", expected="it", do=do) from None
