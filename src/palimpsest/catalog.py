"""Which datasets, models, learners, unlearners, attacks, defences, verifiers and studies there are.

One kind, one folder; one thing, one file; one class. The module's name is the thing's name, the frozen dataclass's
fields are its settings. `my_module:MyClass` goes wherever a name goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import pkgutil
import site
import sys
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from palimpsest.bounds import Bounds, check
from palimpsest.errors import BadInput, ContractError, UnknownName, told

FOLDERS = {
    "data": "palimpsest.data",
    "models": "palimpsest.models",
    "learners": "palimpsest.learn",
    "unlearners": "palimpsest.unlearn",
    "attacks": "palimpsest.attack",
    "defences": "palimpsest.defend",
    "verifiers": "palimpsest.verify",
    "studies": "palimpsest.studies",
}
SUPPORT = {"base", "loop", "recipe", "augment", "search", "curvature", "memory", "folding", "files", "memory_map"}
"""Modules of those folders that support the members and are none themselves. So are modules whose name begins with `_`."""


class Checked:
    """Base of everything that has settings: those outside their bounds are refused, in whatever way the object is made."""

    def __post_init__(self) -> None:
        check(self, name_of(self))


def setting(
    default: Any,
    doc: str,
    *,
    source: str = "",
    search: tuple[float, float] | tuple[int, int] | None = None,
    least: int | float | None = None,
    above: int | float | None = None,
    most: int | float | None = None,
    below: int | float | None = None,
) -> Any:
    """A documented field of a catalog class.

    doc: one line, with the unit or domain. source: where the default comes from. search: the range that tuning may try, on a
    logarithmic scale (between 0.5 and 1: of the distance from 1). least, above, most, below: which numbers it takes; with any of
    them only finite ones.
    """
    bounded = any(end is not None for end in (least, above, most, below))
    bounds = Bounds(least, above, most, below) if bounded else None
    metadata = {"doc": doc, "source": source, "search": search, "bounds": bounds}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def folder(kind: str) -> str:
    if kind not in FOLDERS:
        raise UnknownName("kind", got=kind, known=FOLDERS)
    return FOLDERS[kind]


@cache
def members(kind: str) -> Mapping[str, type]:
    """Name → class of everything of this kind that the package brings. An import error is not swallowed.

    >>> sorted(members("models"))
    ['convnet', 'gpt2', 'linear', 'masked_autoencoder', 'mlp', 'resnet18', 'resnet50', 'vit_mae']
    """
    package = importlib.import_module(folder(kind))
    return _discover(package, kind)


def _discover(package: ModuleType, kind: str) -> dict[str, type]:
    found: dict[str, type] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name in SUPPORT or info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        inner = _discover(module, kind) if info.ispkg else {info.name: only_class(module, kind)}
        for name, member in inner.items():
            if name in found:
                raise ContractError(f"{kind}: got two members named {name!r}, expected one; rename a file")
            found[name] = member
    return found


def only_class(module: ModuleType, kind: str) -> type:
    """The one class of this kind that a module defines; refuses none and refuses two."""
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and getattr(value, "kind", None) == kind
    ]
    if len(own) != 1:
        names = ", ".join(value.__name__ for value in own) or "none"
        raise ContractError(f"{module.__name__}: got {names}, expected exactly one class of kind {kind!r}")
    return own[0]


def find(kind: str, name: str) -> type:
    """The class behind a name, or behind `my_module:MyClass`."""
    if ":" in name:
        value = load(name)
        if not inspect.isclass(value) or getattr(value, "kind", None) != kind:
            raise BadInput(
                name, got=value, expected=f"a class of kind {kind!r}", do="derive it from that kind's base class"
            )
        return value
    if name not in members(kind):
        raise UnknownName(kind.rstrip("s") if kind != "data" else "data", got=name, known=members(kind))
    return members(kind)[name]


def load(target: str) -> Any:
    """The object behind `my_module:attribute`. Raises BadInput with a failing import's own message."""
    module_name, _, attribute = target.partition(":")
    if not module_name or module_name.startswith("."):
        raise BadInput(target, got=f"module {module_name!r}", expected="my_module:MyClass, the module by its full name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            expected = "a module that Python can import"
            raise BadInput(target, got=f"no module {error.name!r}", expected=expected, do="set PYTHONPATH") from error
        raise BadInput(target, got=told(error), expected="a module that can be imported", do="mend it") from error
    except Exception as error:  # whatever a stranger's module raises is its failure, and is told
        raise BadInput(target, got=told(error), expected="a module that can be imported", do="mend it") from error
    if not hasattr(module, attribute):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise UnknownName(target, got=attribute, known=known or ["(nothing)"])
    return getattr(module, attribute)


def name_of(value: Any) -> str:
    """The name that `find` takes for this object's (or this) class."""
    cls = value if inspect.isclass(value) else type(value)
    module: str = cls.__module__
    inside = any(module.startswith(package + ".") for package in FOLDERS.values())
    return module.rsplit(".", 1)[-1] if inside else f"{module}:{cls.__name__}"


def make(kind: str, name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """An instance, its settings checked and converted to the fields' types."""
    return configure(find(kind, name), settings or {}, name)


def configure(cls: type, settings: Mapping[str, Any], name: str | None = None) -> Any:
    """`cls(**settings)`, where text such as "0.01" or "8/255" becomes the field's type; unknown fields are refused."""
    label = name or name_of(cls)
    hints = typing.get_type_hints(cls)
    fields = {entry.name: entry for entry in dataclasses.fields(cls) if entry.init}
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in fields:
            raise UnknownName(f"setting of {label}", got=key, known=fields or ["(it has none)"])
        values[key] = _convert(f"{label}.{key}", value, hints[key])
    missing = [
        key
        for key, entry in fields.items()
        if key not in values and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise BadInput(
            label, got=f"no {missing[0]}", expected="a value for it", do=f"pass --set {label}.{missing[0]}=…"
        )
    made = cls(**values)
    check(made, label)  # again, for a class of somebody's own with another `__post_init__`
    return made


def _convert(label: str, value: Any, hint: Any) -> Any:
    if isinstance(value, str):
        takes = {typing.get_origin(part) or part for part in (hint, *typing.get_args(hint))}
        if value.lower() in ("none", "null") and type(None) in takes:
            value = None
        elif tuple in takes:
            value = [_fraction(part) for part in value.split(",") if part.strip()]
        else:
            value = _fraction(value) if _is_number(hint) else value
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else (value,)
    if value not in choices:
        raise UnknownName(label, got=str(value), known=map(str, choices))
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        expected = f"{hint.__name__ if inspect.isclass(hint) else hint} ({error.errors()[0]['msg']})"
        raise BadInput(label, got=repr(value), expected=expected) from None


def _is_number(hint: Any) -> bool:
    return hint in (int, float) or any(part in (int, float) for part in typing.get_args(hint))


def _fraction(text: str) -> str | float:
    """8/255 and 8/255.0 are numbers; anything else stays text for the type to judge."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else text
    except (ValueError, ZeroDivisionError):
        return text


def settings_of(value: Any) -> dict[str, Any]:
    """The settings of an instance as JSON-ready values, nested catalog objects included."""
    return {entry.name: plain(getattr(value, entry.name)) for entry in dataclasses.fields(value) if entry.init}


def identity(value: Any) -> dict[str, Any]:
    """What an artifact made by this object is keyed by: name, revision (raised when behaviour changes) and settings."""
    extra = value.identity_extra() if hasattr(value, "identity_extra") else {}
    if not type(value).__module__.startswith("palimpsest."):
        extra = {"source": source_hash(type(value)), **extra}
    return {"name": name_of(value), "revision": getattr(value, "revision", 1), **settings_of(value), **extra}


def source_hash(value: Any) -> str:
    """SHA-256 of the source that a user's class or function comes from, so that an edited one is another one.

    That is its module and, from there on, each module of the same package (or, outside of one, the same folder) that a module
    names at its top. What is imported within functions, or compiled, is not seen: raise `revision` for those.
    """
    first = inspect.getmodule(value)
    texts: dict[str, str] = {}
    pending = [] if first is None else [first]
    while pending:
        module = pending.pop()
        if module.__name__ in texts:
            continue
        try:
            texts[module.__name__] = inspect.getsource(module)
        except (OSError, TypeError):  # a notebook, or a console
            texts[module.__name__] = ""
        for entry in vars(module).values():
            near = entry if inspect.ismodule(entry) else sys.modules.get(str(getattr(entry, "__module__", "")))
            if near is not None and _together(first, near):
                pending.append(near)
    if not any(texts.values()):
        with contextlib.suppress(OSError, TypeError):
            texts[""] = inspect.getsource(value)
    return hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()


def _together(one: Any, other: Any) -> bool:
    """Whether two modules belong to one package, or are plain modules side by side in a folder of somebody's own."""
    package = one.__name__.partition(".")[0]
    if other.__name__.partition(".")[0] == package:
        return True
    folders = {Path(file).parent for module in (one, other) if (file := getattr(module, "__file__", None))}
    alone = "." not in one.__name__ and "." not in other.__name__
    return alone and len(folders) == 1 and not folders & {Path(path) for path in site.getsitepackages()}


def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not inspect.isclass(value):
        return identity(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    return value


def document(cls: type) -> list[dict[str, Any]]:
    """Fields of a catalog class for `palimpsest show` and the generated docs: name, type, default, doc, source."""
    hints = typing.get_type_hints(cls)
    rows = []
    for entry in dataclasses.fields(cls):
        if entry.default is not dataclasses.MISSING:
            default: Any = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()
        else:
            default = "(required)"
        hint = hints[entry.name]
        rows.append(
            {
                "name": entry.name,
                "type": hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", ""),
                "default": default,
                "doc": entry.metadata.get("doc", ""),
                "source": entry.metadata.get("source", ""),
            }
        )
    return rows
