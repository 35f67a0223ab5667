"""One module, one class; settings become their types; what cannot be used is refused with the reason."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from palimpsest import catalog
from palimpsest.catalog import configure, document, find, identity, load, make, members, name_of, setting, settings_of
from palimpsest.errors import BadInput, ContractError, UnknownName
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet

numbers = itertools.count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes a package of the given modules and returns its kind; every class has that kind."""

    def write(**modules: str) -> str:
        kind = f"zoo{next(numbers)}"
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, text in modules.items():
            place = folder / (name.replace("__", "/") + ".py")
            place.parent.mkdir(exist_ok=True)
            (place.parent / "__init__.py").touch()
            place.write_text(text.replace("KIND", f"kind = {kind!r}"))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setitem(catalog.FOLDERS, kind, kind)
        return kind

    return write


def test_the_modules_name_is_the_things_name_in_subfolders_too(package: Any) -> None:
    kind = package(
        cat="class Cat:\n    KIND\nclass Helper:\n    pass\n",
        big__lion="class Lion:\n    KIND\n",
        _hidden="raise ImportError('not to be imported')",
        base="class Base:\n    KIND\n",
    )
    assert {name: member.__name__ for name, member in members(kind).items()} == {"cat": "Cat", "lion": "Lion"}
    assert find(kind, "lion").__name__ == "Lion"


def test_two_classes_in_a_module_are_refused(package: Any) -> None:
    kind = package(cat="class Cat:\n    KIND\nclass Dog:\n    KIND\n")
    with pytest.raises(ContractError, match="got Cat, Dog, expected exactly one class"):
        members(kind)


def test_a_module_without_a_class_is_refused_and_an_imported_class_does_not_count(package: Any) -> None:
    kind = package(cat="class Cat:\n    KIND\n", dog="from .cat import Cat\n")
    with pytest.raises(ContractError, match=r"dog: got none, expected exactly one class"):
        members(kind)


def test_one_name_for_two_members_is_refused(package: Any) -> None:
    kind = package(cat="class Cat:\n    KIND\n", big__cat="class Cat:\n    KIND\n")
    with pytest.raises(ContractError, match="two members named 'cat'"):
        members(kind)


def test_an_import_error_inside_a_member_is_loud(package: Any) -> None:
    kind = package(cat="import surely_not_installed\nclass Cat:\n    KIND\n")
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        members(kind)
    kind = package(cat="1 / 0")
    with pytest.raises(ZeroDivisionError):
        members(kind)


def test_an_unknown_name_or_kind_gives_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'convnet'") as error:
        find("models", "convet")
    assert str(error.value).startswith("model: got 'convet'")
    with pytest.raises(UnknownName, match="did you mean 'unlearners'"):
        members("unlearner")


def test_every_kind_can_be_listed_and_documented() -> None:
    for kind in catalog.FOLDERS:
        for name, member in members(kind).items():
            assert name_of(member) == name
            for row in document(member):
                assert row["doc"], f"{name}.{row['name']} has no line of documentation"
                assert row["source"], f"{name}.{row['name']}: where does the default come from?"


def test_a_class_of_ones_own_goes_wherever_a_name_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from palimpsest.models.mlp import Mlp\nclass Mine(Mlp):\n    pass\nthing = 3\n"
    (tmp_path / "own_catalog.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = make("models", "own_catalog:Mine", {"width": "8"})
    assert mine.width == 8
    assert name_of(mine) == "own_catalog:Mine"
    with pytest.raises(BadInput, match="expected a class of kind 'attacks'"):
        find("attacks", "own_catalog:Mine")
    with pytest.raises(BadInput, match="expected a class of kind 'models'"):
        find("models", "own_catalog:thing")
    with pytest.raises(UnknownName, match="did you mean 'Mine'"):
        load("own_catalog:Mime")


@pytest.mark.parametrize("target", ["no_such_module_here:Thing", ":Thing", ".relative:Thing", "json.no_such:Thing"])
def test_a_module_that_cannot_be_found_is_bad_input(target: str) -> None:
    with pytest.raises(BadInput, match=r"got (no )?module"):
        load(target)


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        (
            "own_lacking",
            "import another_missing_thing\n",
            "ModuleNotFoundError: No module named 'another_missing_thing'",
        ),
        ("own_failing", "\n1 / 0\n", r"ZeroDivisionError: division by zero \(own_failing\.py, line 2\)"),
        ("own_broken", "def f(:\n", "SyntaxError"),
    ],
)
def test_a_users_module_with_a_failing_import_keeps_its_own_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, told: str
) -> None:
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadInput, match=told):
        load(f"{name}:Thing")


@dataclass(frozen=True)
class Thing:
    rate: float = setting(0.1, "a rate")
    count: int = setting(1, "a count")
    epsilons: tuple[float, ...] = setting((0.1,), "several numbers")
    maybe: float | None = setting(None, "a number or none")
    several: tuple[int, ...] | None = setting(None, "several or none")
    flag: bool = setting(False, "yes or no")
    how: Literal["none", "some"] = setting("some", "a choice")
    text: str = setting("", "any text")
    table: dict[str, int] = setting({}, "a table")  # noqa: RUF009


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("rate", "0.01", 0.01),
        ("rate", "8/255", 8 / 255),
        ("rate", "1e-3", 1e-3),
        ("rate", 2, 2.0),
        ("count", "12", 12),
        ("epsilons", "0.1,0.2", (0.1, 0.2)),
        ("epsilons", "8/255, 16/255", (8 / 255, 16 / 255)),
        ("epsilons", "0.5", (0.5,)),
        ("epsilons", [1, 2], (1.0, 2.0)),
        ("maybe", "none", None),
        ("maybe", "8/255", 8 / 255),
        ("several", "None", None),
        ("several", "1,2", (1, 2)),
        ("flag", "true", True),
        ("flag", "no", False),
        ("how", "none", "none"),
        ("text", "none", "none"),
        ("text", "a/b", "a/b"),
        ("table", {"a": 1}, {"a": 1}),
    ],
)
def test_settings_become_their_types(name: str, given: Any, expected: Any) -> None:
    value = getattr(configure(Thing, {name: given}), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("rate", "fast"),
        ("rate", "1/0"),
        ("rate", "none"),
        ("count", "1.5"),
        ("count", "8/255"),
        ("epsilons", "0.1,much"),
        ("flag", "perhaps"),
        ("how", "sum"),
        ("text", 3),
        ("table", {"a": "b"}),
    ],
)
def test_wrong_types_are_refused_by_name(name: str, given: Any) -> None:
    with pytest.raises(BadInput, match=rf"thing\.{name}: got .* expected"):
        configure(Thing, {name: given}, "thing")


def test_an_unknown_setting_gives_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"setting of thing: got 'epsilon', .* did you mean 'epsilons'"):
        configure(Thing, {"epsilon": 1}, "thing")
    with pytest.raises(UnknownName, match="it has none"):
        make("models", "linear", {"width": 3})


def test_a_required_setting_is_asked_for() -> None:
    @dataclass(frozen=True)
    class Needy:
        path: str = setting(dataclasses.MISSING, "a path")

    with pytest.raises(BadInput, match=r"needy: got no path.*--set needy\.path"):
        configure(Needy, {}, "needy")


def test_a_default_table_is_not_shared() -> None:
    one, other = Thing(), Thing()
    one.table["a"] = 1
    assert other.table == {}


def test_the_recipes_choices_can_be_set_by_their_names() -> None:
    assert configure(Recipe, {"augment": "none", "lr": "1/100"}) == Recipe(augment="none", lr=0.01)


def test_identity_holds_name_revision_and_every_setting() -> None:
    assert identity(ConvNet(width=8)) == {"name": "convnet", "revision": 1, "width": 8, "places": 1}
    assert identity(ConvNet(width=8)) != identity(ConvNet(width=9))
    assert settings_of(Thing())["epsilons"] == [0.1]

    class Revised(ConvNet):
        revision = 2

    assert identity(Revised(8))["revision"] == 2


def test_identity_of_nested_objects_and_extra() -> None:
    @dataclass(frozen=True)
    class Outer:
        inner: Any = setting(None, "another thing")  # noqa: RUF009

        def identity_extra(self) -> dict[str, str]:
            return {"file": "hash"}

    found = identity(Outer(ConvNet(width=4)))
    assert found["inner"] == {"name": "convnet", "revision": 1, "width": 4, "places": 1}
    assert found["file"] == "hash"
