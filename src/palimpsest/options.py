"""From choices in words to a plan: names become parts, text becomes settings, gaps are filled with defaults."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from palimpsest import catalog
from palimpsest.attack.base import Attack
from palimpsest.audit.plan import Imported, Plan, every_verifier
from palimpsest.audit.policy import Policy
from palimpsest.audit.yardstick import yardstick
from palimpsest.data import open_data
from palimpsest.data.base import Dataset
from palimpsest.defend.base import Defence
from palimpsest.errors import BadInput, UnknownName
from palimpsest.forget.selection import each, read_ids
from palimpsest.forget.trained_on import recall
from palimpsest.language import Language
from palimpsest.learn.base import Learner
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model, factory, task_of
from palimpsest.presets import Choices, Settings, choices
from palimpsest.reconstruction import Reconstruction
from palimpsest.task import Classification
from palimpsest.types import Split
from palimpsest.unlearn.base import Unlearner
from palimpsest.verify.base import Verifier

UNLEARN: Mapping[str, tuple[str, ...]] = {
    Classification.name: ("retrain", "finetune", "random_label", "salun"),
    Language.name: ("retrain", "finetune", "random_label", "negative_gradient"),
    Reconstruction.name: ("retrain", "finetune", "image_to_image", "salun"),
}
"""The methods when none is named, by task."""
EVERY = "all"
"""For --unlearn: every method of the catalog; those that the case is not for are skipped, with their reason."""
MODELS = {"image": "convnet", "features": "mlp", "text": "mlp", "tokens": "gpt2"}
"""The model when none is named, by kind of data."""
SEEDS = 3
ROLES = ("data", "model", "learner", "recipe", "policy")
"""Names under which settings can be given whatever the part is called."""


@dataclass(frozen=True)
class Parts:
    """The parts of an audit, each made with its settings."""

    data: Dataset
    model: Model
    learner: Learner
    recipe: Recipe
    policy: Policy
    unlearners: tuple[Unlearner, ...]
    attacks: tuple[Attack, ...]
    verifiers: tuple[Verifier, ...]
    defences: tuple[Defence, ...] = ()


def dataset(chosen: Choices) -> Dataset:
    """The data set that was chosen, not yet read. Raises BadInput where none was."""
    if chosen.data is None:
        expected = "a name of `palimpsest list data`, a folder, a .csv or .parquet file"
        raise BadInput("--data", got="nothing", expected=expected, do="name the data")
    fields = _fields(chosen.settings, "data", _data_name(chosen.data))
    if chosen.limit is not None:
        fields["limit"] = chosen.limit
    return open_data(chosen.data, fields)


def reading(chosen: Choices) -> Choices:
    """The same with the model of text that is read as tokens, where none was named: its task is another than a classifier's."""
    if chosen.model is not None or chosen.data is None or not getattr(dataset(chosen), "tokens", 0):
        return chosen
    return chosen.model_copy(update={"model": MODELS["tokens"]})


def reader(chosen: Choices) -> Callable[[], Split]:
    """Reads the chosen data when first called; later calls give the same."""
    return cache(dataset(chosen).load)


def parts(chosen: Choices, read: Callable[[], Split] | None = None, asked: Collection[str] = ()) -> Parts:
    """Every part that was chosen, made and configured. The data are read only where no model is named, after all else is checked.

    read: gives the data, where somebody else needs them too. asked: names in the settings that must belong to a part of this
    audit; others may belong to anything that the catalog knows, as a preset's settings do when another method is chosen.
    Raises UnknownName for a name or a field that there is not (with the nearest one), BadInput for a value of another type.
    """
    data, chosen = dataset(chosen), reading(chosen)
    learner, task = chosen.learner or "plain", task_named(chosen)
    stick = yardstick(task)
    unlearners = labelled("unlearners", methods(chosen)[0])
    attacks = labelled("attacks", stick.attacks if chosen.attack is None else chosen.attack)
    wanted = map(catalog.name_of, every_verifier(task)) if chosen.verify is None else chosen.verify
    verifiers = {stick.by: stick.by, **labelled("verifiers", wanted)}
    defences = labelled("defences", chosen.defend or ())
    needed = _needed(unlearners.values())
    named = {*ROLES, _data_name(str(chosen.data)), learner, *needed, *unlearners, *attacks, *verifiers, *defences}
    _check_names(chosen.settings, named | ({chosen.model} if chosen.model else {*MODELS.values()}), asked)

    def made(kind: str, named: Mapping[str, str]) -> tuple[Any, ...]:
        return tuple(catalog.make(kind, name, chosen.settings.get(label)) for label, name in named.items())

    others: dict[str, Any] = {
        "learner": catalog.make("learners", learner, _fields(chosen.settings, "learner", learner)),
        "recipe": catalog.configure(Recipe, {**chosen.recipe, **chosen.settings.get("recipe", {})}, "recipe"),
        "policy": catalog.configure(Policy, chosen.settings.get("policy", {}), "policy"),
        "unlearners": made("unlearners", unlearners),
        "attacks": made("attacks", attacks),
        "verifiers": made("verifiers", verifiers),
        "defences": made("defences", defences),
    }
    model = chosen.model
    if model is None:
        model = MODELS[(read or data.load)().kind]
        _check_names(chosen.settings, named | {model}, asked)
    return Parts(data=data, model=factory(model, _fields(chosen.settings, "model", model)), **others)


def make_plan(
    chosen: Choices,
    read: Callable[[], Split] | None = None,
    *,
    asked: Collection[str] = (),
    imported: Imported | None = None,
    device: str = "cpu",
) -> Plan:
    """The plan of an audit. Raises BadInput where the choices cannot be carried out."""
    chosen = reading(chosen)
    if imported is not None:
        _check_imported(chosen)
        chosen = chosen.model_copy(update={"unlearn": (), "seeds": 1})
    made = parts(chosen, read, asked)
    learner, learners = _learners(chosen, made)
    apart = min((told.apart for told in chosen.tuned.values() if told.apart is not None), default=None)
    if apart is not None and (chosen.seeds or SEEDS) > apart:
        do = f"tune again with --seeds {chosen.seeds}: further seeds may forget records that the settings were tuned on"
        raise BadInput("--seeds", got=chosen.seeds, expected=f"at most {apart}, those that tuning kept apart", do=do)
    return Plan(
        data=made.data,
        model=made.model,
        forget=tuple(request for text in chosen.forget or () for request in each(text)),
        separate=bool(chosen.separate),
        detected=chosen.detected or 1.0,
        unlearners=made.unlearners,
        attacks=made.attacks,
        verifiers=made.verifiers,
        defences=made.defences,
        recipe=made.recipe,
        learner=learner,
        learners=learners,
        optional=frozenset(methods(chosen)[1]),
        seeds=tuple(range(chosen.seeds or SEEDS)),
        controls=chosen.controls or 2,
        policy=made.policy,
        imported=imported,
        device=usable_device(device),
        threads=chosen.threads,
        search=searched(chosen, made.unlearners),
        scale=chosen.scale or "custom",
        tuned={label: told.model_dump() for label, told in chosen.tuned.items()},
    )


def searched(chosen: Choices, unlearners: Iterable[Unlearner]) -> dict[str, dict[str, tuple[Any, ...]]]:
    """The values that are to be tried of each method's fields, as the fields have them.

    Raises UnknownName for a method that is not part of the audit or a field that it does not have, BadInput for a value that it
    refuses.
    """
    made = dict(zip(labelled("unlearners", methods(chosen)[0]), unlearners, strict=True))
    found: dict[str, dict[str, tuple[Any, ...]]] = {}
    for name, fields in chosen.search.items():
        label = resolved("unlearners", name)
        if label not in made:
            raise UnknownName("--search", got=name, known=made)
        own = catalog.settings_of(made[label])
        for field, values in fields.items():
            if not values:
                raise BadInput(f"--search {name}.{field}", got="no value", expected="values to try, such as 0.01,0.1")
            every = [catalog.make("unlearners", label.partition("#")[0], {**own, field: value}) for value in values]
            found.setdefault(label, {})[field] = tuple(getattr(one, field) for one in every)
    return found


def methods(chosen: Choices) -> tuple[list[str], list[str]]:
    """The methods that were asked for, "all" spelled out with retraining first; and the labels of those that "all" stands for."""
    every = sorted(catalog.members("unlearners"), key=lambda name: (name != "retrain", name))
    names: list[str] = []
    optional: list[int] = []
    for name in wanted(chosen):
        if name.strip() == EVERY:
            optional += range(len(names), len(names) + len(every))
            names += every
        else:
            names.append(name)
    labels = list(labelled("unlearners", names))
    return names, [labels[place] for place in optional]


def wanted(chosen: Choices) -> tuple[str, ...]:
    """The methods by name as they were asked for, or those of the task where none were."""
    return UNLEARN[task_named(chosen)] if chosen.unlearn is None else chosen.unlearn


def task_named(chosen: Choices) -> str:
    """The task that the chosen model solves."""
    model = reading(chosen).model
    return Classification.name if model is None else task_of(model)


def _needed(names: Iterable[str]) -> list[str]:
    """Learners that these methods need, each once."""
    found = [getattr(catalog.find("unlearners", name), "needs", "") for name in names]
    return [name for name in dict.fromkeys(found) if name]


def _learners(chosen: Choices, made: Parts) -> tuple[Learner, dict[str, Learner]]:
    """The audit's learner, and by name those that single methods need beside it. Where all need the same, that is the audit's."""
    needs = [unlearner.needs for unlearner in made.unlearners]
    own = catalog.name_of(made.learner)
    others = {
        name: catalog.make("learners", name, chosen.settings.get(name))
        for name in dict.fromkeys(needs)
        if name not in ("", own)
    }
    if len(set(needs)) == 1 and others:
        return others.popitem()[1], {}
    return made.learner, others


def plan(*, device: str = "cpu", **chosen: Any) -> Plan:
    """A plan from the same words as on the command line (the fields of `Choices`).

    >>> chosen = plan(data="digits", model="linear", forget=["class=0"], unlearn=["FT"], settings={"finetune": {"lr": 0.05}})
    >>> chosen.unlearners[0].lr
    0.05
    """
    words = choices(chosen)
    return make_plan(words, asked=tuple(words.settings), device=device)


def labelled(kind: str, names: Iterable[str]) -> dict[str, str]:
    """Label → name in the catalog; aliases of papers are understood, and a name that comes twice gets a number."""
    found: dict[str, str] = {}
    for given in names:
        name = resolved(kind, given.strip())
        label, count = name, 1
        while label in found:
            count += 1
            label = f"{name}#{count}"
        found[label] = name
    return found


def resolved(kind: str, name: str) -> str:
    """The catalog's name for a name or an alias; anything else as it is, for the catalog to judge."""
    for member, cls in catalog.members(kind).items():
        if name.lower() in (member, *(alias.lower() for alias in getattr(cls, "aliases", ()))):
            return member
    return name


def ranges(texts: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """`--search NAME.FIELD=VALUE,VALUE`, each, as values to be tried.

    >>> ranges(["finetune.lr=0.01,0.1"])
    {'finetune': {'lr': ['0.01', '0.1']}}
    """
    return {
        name: {field: [value.strip() for value in str(text).split(",")] for field, text in fields.items()}
        for name, fields in assignments(texts, "--search").items()
    }


def assignments(texts: Iterable[str], option: str = "--set") -> Settings:
    """`--set NAME.FIELD=VALUE`, each, as settings.

    >>> assignments(["salun.lr=0.01", "my_module:Mine.steps=3"])
    {'salun': {'lr': '0.01'}, 'my_module:Mine': {'steps': '3'}}
    """
    found: Settings = {}
    for text in texts:
        left, equals, value = text.partition("=")
        name, dot, field = left.rpartition(".")
        if not (equals and dot and name and field):
            raise BadInput(
                option, got=repr(text), expected="NAME.FIELD=VALUE", do=f"write it like {option} salun.lr=0.01"
            )
        found.setdefault(name.strip(), {})[field.strip()] = value
    return found


def imported_weights(
    original: str, unlearned: Iterable[str], retrained: str | None, train_ids: str | None, retrain: bool
) -> Imported:
    """Files of foreign weights as a plan takes them; an unlearned model may be given as NAME=FILE.

    Without a file of training ids they are those listed beside the original weights, if they are.
    """
    named: dict[str, Path] = {}
    for text in unlearned:
        name, equals, file = text.partition("=")
        if not equals or Path(text).exists():
            name, file = Path(text).stem, text
        if name in named or not name:
            got = f"the name {name!r} twice" if name else "no name"
            raise BadInput("--unlearned", got=got, expected="a name of its own for each", do="write NAME=FILE")
        named[name] = Path(file)
    if not named:
        raise BadInput("--unlearned", got="nothing", expected="weights after unlearning", do="pass --unlearned FILE")
    listed = recall(Path(original)) if train_ids is None else read_ids(Path(train_ids))
    ids = None if listed is None else tuple(listed)
    return Imported(Path(original), named, None if retrained is None else Path(retrained), ids, retrain)


def usable_device(text: str) -> str:
    """The device, if torch knows it and has it here."""
    if text.startswith("cpu:"):  # torch takes it, and then two names are one device
        raise BadInput("--device", got=repr(text), expected="a device of this machine", do="write cpu")
    try:
        torch.ones(1, device=torch.device(text)).cpu()  # there and back: meta tensors, for one, hold nothing
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        raise BadInput(
            "--device", got=f"{text!r} ({reason})", expected="a device of this machine", do="try cpu"
        ) from None
    return text


def _check_imported(chosen: Choices) -> None:
    for name, value, do in (
        ("--model", chosen.model, "name the model that the weights are of, such as my_package.models:make"),
        ("--forget", chosen.forget, "say which records were unlearned, such as ids=FILE or class=0"),
    ):
        if not value:
            raise BadInput(name, got="nothing", expected="it, beside --original and --unlearned", do=do)
    if chosen.defend:
        do = "defend models that are trained and unlearned here"
        raise BadInput("--defend", got=", ".join(chosen.defend), expected="nothing beside --original", do=do)
    if chosen.seeds not in (None, 1):
        expected = "1: weights from files are one draw, however often they are attacked"
        raise BadInput("--seeds", got=chosen.seeds, expected=expected, do="leave it out")
    if chosen.unlearn is not None:
        do = "make a model with `palimpsest unlearn` first, and pass its file as --unlearned"
        raise BadInput("--unlearn", got=", ".join(chosen.unlearn), expected="nothing beside --unlearned", do=do)
    drawn = [text for text in chosen.forget or () if text.startswith("random")]
    if drawn:
        expected = "the records that were unlearned, not a new draw"
        raise BadInput("--forget", got=drawn[0], expected=expected, do="name them with ids=FILE, class=… or owner=…")


def _data_name(text: str) -> str:
    """The name of the data set that `open_data` makes of a text."""
    if text in catalog.members("data"):
        return text
    place = Path(text).expanduser()
    return "hub" if text.startswith("hub:") or place.is_dir() else "table" if place.is_file() else text


def _fields(settings: Settings, role: str, name: str) -> dict[str, Any]:
    return {**settings.get(role, {}), **settings.get(name, {})}


def _check_names(settings: Settings, known: set[str], asked: Collection[str]) -> None:
    """Raises UnknownName for a name that is no part of this audit; one that could be of another is let through unless asked for."""
    possible = {name for kind in catalog.FOLDERS for name in catalog.members(kind)}
    for name in settings:
        if name in known or (name not in asked and (":" in name or name.partition("#")[0] in possible)):
            continue
        here = name in possible
        do = "it is no part of this audit" if here else "name a part of this audit"
        raise UnknownName("settings (--set NAME.FIELD)", got=name, known=known if here else known | possible, do=do)
