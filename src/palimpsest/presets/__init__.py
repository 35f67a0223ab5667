"""What an audit is asked for, as text: a settings file, a preset that the package brings, and the command line say the same things.

A file is JSON with any of the fields of `Choices`:

    {"data": "digits", "model": "convnet", "recipe": {"epochs": 12}, "forget": ["class=0"], "unlearn": ["retrain", "salun"],
     "attack": ["uma"], "seeds": 3, "settings": {"convnet": {"width": 4}, "salun": {"lr": 0.05}, "uma": {"epsilon": "8/255"}}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palimpsest.catalog import members
from palimpsest.errors import BadInput, UnknownName

Settings = dict[str, dict[str, Any]]


SUBJECT = frozenset({"data", "limit", "model", "learner", "recipe", "forget", "separate", "detected"})
"""What settings are tuned for."""
SUBJECT_KINDS = ("data", "models", "learners")
"""Kinds of parts whose own settings belong to that too."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trial(_Strict):
    """Settings that were tried, and their gap to retraining part by part, or why there is none."""

    settings: dict[str, Any] = {}
    gap: dict[str, float] = {}
    reason: str = ""


class Told(_Strict):
    """What `palimpsest tune` says of one method. apart: how many reported seeds it kept its records apart from; none: all."""

    trials: int = Field(ge=0)
    failed: int = 0
    default: Trial = Trial()
    tuned: Trial = Trial()
    seeds: int = 0
    share: float = 0.0
    apart: int | None = None


class Choices(BaseModel):
    """Everything is optional; what is left out is filled in by `options.plan`.

    data, model, learner, unlearn, attack, verify, defend: names as `palimpsest list` shows them, or `my_module:MyClass`. limit:
    at most this many training records. recipe: fields of the recipe. forget: selections, one request each, in order. separate:
    whether each request is of the original alone. detected: share of what was handed in that is asked to be forgotten. seeds: how
    many, counted from 0. controls: retrained models per seed. threads: of torch; none: its own choice. settings: name of a part →
    its fields. search: label of a method → its fields → values, of which that with the least error on validation records is taken.
    about, scale: what a preset says of itself. tuned: what `palimpsest tune` says of how it found the settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    about: str = ""
    scale: str = ""
    data: str | None = None
    limit: int | None = Field(None, ge=1)
    model: str | None = None
    learner: str | None = None
    recipe: dict[str, Any] = {}
    forget: tuple[str, ...] | None = None
    separate: bool | None = None
    detected: float | None = Field(None, gt=0, le=1)
    unlearn: tuple[str, ...] | None = None
    attack: tuple[str, ...] | None = None
    verify: tuple[str, ...] | None = None
    defend: tuple[str, ...] | None = None
    seeds: int | None = Field(None, ge=1)
    controls: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    settings: Settings = {}
    search: dict[str, dict[str, tuple[Any, ...]]] = {}
    tuned: dict[str, Told] = {}

    def over(self, base: Choices) -> Choices:
        """These choices where they are made, the base's where they are not; settings are merged field by field.

        What a preset calls its scale holds only as long as nothing of it is changed. What was tuned holds only for the same
        data, model, training and kind of request, and for a method only as long as its settings stay as they were found.
        """
        mine = {
            name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) not in (None, {}, "")
        }
        if not mine:
            return base
        settings = {name: dict(fields) for name, fields in base.settings.items()}
        for name, fields in self.settings.items():
            settings[name] = {**settings.get(name, {}), **fields}
        recipe = {**base.recipe, **self.recipe}
        changes = {"scale": "", **mine, "settings": settings, "recipe": recipe}
        changed = {name for name, fields in settings.items() if fields != base.settings.get(name, {})}
        if SUBJECT & mine.keys() or any(base._is_subject(name) for name in changed):
            changes["tuned"] = {}
        elif not self.tuned:
            changes["tuned"] = {label: told for label, told in base.tuned.items() if label not in changed}
        return base.model_copy(update=changes)

    def _is_subject(self, name: str) -> bool:
        """Whether settings under this name are those of the data, the model or the training."""
        own = (self.data, self.model, self.learner)
        return name in SUBJECT or name in own or any(name in members(kind) for kind in SUBJECT_KINDS)


def choices(values: Mapping[str, Any], where: str = "") -> Choices:
    """`values` as choices; `where` is put before a field's name in errors ("--" on the command line).

    Raises BadInput for a field of another type, UnknownName for one that there is not.
    """
    try:
        return Choices.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise UnknownName(where.strip() or "settings", got=field, known=Choices.model_fields) from None
        place = where + ".".join(str(part) for part in first["loc"])
        expected = first["msg"].removeprefix("Input should be ")
        raise BadInput(place, got=repr(first["input"]), expected=expected) from None


def preset_names() -> list[str]:
    """Presets that the package brings."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".json") for name in files if name.endswith(".json") and name.count(".") == 1)


def read(name: str) -> Choices:
    """The choices in a settings file, or in a preset of this name."""
    if name in preset_names():
        text = (resources.files(__name__) / f"{name}.json").read_text(encoding="utf-8")
    elif Path(name).suffix == ".json" or Path(name).exists():
        text = _text(Path(name))
    else:
        raise UnknownName("--settings", got=name, known=preset_names(), do="or name a .json file")
    return choices(parsed(text, name), f"{name}: ")


def read_recipe(name: str) -> dict[str, Any]:
    """The fields of a recipe in a JSON file: an object of its own, or the "recipe" of a settings file."""
    content = parsed(_text(Path(name)), name)
    recipe = content.get("recipe", content)
    if not isinstance(recipe, dict):
        raise BadInput(name, got=f"a recipe that is {recipe!r}", expected='an object such as {"epochs": 15, "lr": 0.1}')
    return recipe


def parsed(text: str, where: str) -> dict[str, Any]:
    """The JSON object in a text."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadInput(where, got=f"text that is not JSON ({error})", expected="a JSON object") from None
    if not isinstance(content, dict):
        raise BadInput(where, got=f"a JSON {type(content).__name__}", expected="a JSON object", do="put it in {…}")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        got = getattr(error, "strerror", None) or error
        raise BadInput(str(path), got=got, expected="a JSON file with settings", do="check the path") from None
