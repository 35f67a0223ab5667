"""Records are taken out of store, memory maps and reports; what was asked to be redacted is in none of the files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from palimpsest import record
from palimpsest.cli import main
from palimpsest.data import memory_map
from palimpsest.report import panels
from palimpsest.store import Store
from palimpsest.types import Split
from tests.command_line import tiny
from tests.data.sources import people
from tests.report import made

UMA = ("--attack", "uma", "--set", "uma.steps=1")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an attacked audit, with its store and output; tests work on copies."""
    folder = tmp_path_factory.mktemp("attacked")
    assert tiny(folder, *UMA) == 0
    return folder


@pytest.fixture
def ran(attacked: Path, tmp_path: Path) -> Path:
    for part in ("store", "out"):
        shutil.copytree(attacked / part, tmp_path / part)
    return tmp_path


def purged(folder: Path, ids: list[str], *more: str) -> int:
    (folder / "gone.txt").write_text("\n".join(ids))
    return main(["purge", "--ids", str(folder / "gone.txt"), "--store", str(folder / "store"), *more])


def arrays(folder: Path) -> Iterator[tuple[Path, str, np.ndarray]]:
    for path in folder.rglob("*.safetensors"):
        for name, value in safetensors.numpy.load(path.read_bytes()).items():
            yield path, name, value


def lookalikes(folder: Path, split: Split, radius: float = 0.2) -> list[str]:
    """Arrays below a folder with a row that is, up to the attack's radius, one of the data's records."""
    known = np.concatenate([part.batch().inputs["image"].numpy() for part in (split.train, split.test)])
    known, found = known.reshape(len(known), -1), []
    for path, name, value in arrays(folder):
        if value.size and value.size % known.shape[1] == 0 and value.dtype == np.float32:
            rows = value.reshape(-1, known.shape[1])
            if any(float(np.abs(known - row).max(1).min()) <= radius for row in rows):
                found.append(f"{path}: {name}")
    return found


# panels


def test_a_purge_drops_the_panels_that_show_a_record(tmp_path: Path) -> None:
    """Whatever the record was for: forgotten, retained, or a test record that stood in for a control."""
    shown = [replace(made.panel(label), ids=(f"{label}/0", f"{label}/1")) for label in ("one", "two", "three")]
    panels.save(tmp_path, shown)
    assert [panel.ids for panel in panels.load(tmp_path)] == [panel.ids for panel in shown]
    assert panels.purge(tmp_path, ["nobody"]) == 0
    assert panels.purge(tmp_path, ["two/1"]) == 1
    assert [panel.unlearner for panel in panels.load(tmp_path)] == ["one", "three"]
    assert panels.purge(tmp_path, ["one/0", "three/0"]) == 2
    assert not (tmp_path / panels.FILE).exists()
    assert panels.purge(tmp_path, ["one/0"]) == 0


@pytest.mark.parametrize("state", ["without ids", "unreadable"])
def test_panels_that_do_not_say_whom_they_show_go(tmp_path: Path, state: str) -> None:
    made.with_images(tmp_path)
    if state == "unreadable":
        (tmp_path / panels.FILE).write_bytes(b"not images at all")
    assert panels.purge(tmp_path, ["anybody"]) == 1
    assert not (tmp_path / panels.FILE).exists()


def test_an_audit_says_whom_its_panels_show(ran: Path, digits: Split) -> None:
    forgotten = record.read(ran / "out").requests[0].ids
    everyone = {name: place for place, name in enumerate(digits.train.ids.tolist())}
    for panel in panels.load(ran / "out"):
        assert set(panel.ids) <= set(forgotten)
        rows = digits.train.take([everyone[name] for name in panel.ids]).batch().inputs["image"].numpy()
        assert np.array_equal(panel.original, rows)
        assert np.abs(panel.original - panel.attacked).max() <= panel.epsilon + 1e-6


# the command


def test_without_a_report_purge_says_that_reports_are_as_they_were(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = record.read(ran / "out").requests[0].ids[0]
    before = {path: path.read_bytes() for path in (ran / "out").rglob("*") if path.is_file()}
    assert purged(ran, [one]) == 0
    said = capsys.readouterr().out
    assert "not looked through: any report (no --report DIR was given)" in said
    assert str(ran / "cache") in said
    assert {path: path.read_bytes() for path in before} == before


def test_purge_goes_through_several_reports(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second time nothing in the store names the record, but the reports do."""
    shutil.copytree(ran / "out", ran / "other")
    one = record.read(ran / "out").requests[0].ids[0]
    assert purged(ran, [one]) == 0
    capsys.readouterr()
    assert purged(ran, [one], "--report", str(ran / "out"), "--report", str(ran / "other" / "record.json")) == 0
    assert "warning" not in capsys.readouterr().out
    for out in (ran / "out", ran / "other"):
        assert not (out / panels.FILE).exists()
        assert not list(out.rglob("record-*.png"))
        assert "Attacked images" not in (out / "report.html").read_text()
        assert all(one not in record.read_scores(out, path.stem).ids for path in (out / "scores").glob("*"))


def test_nothing_is_purged_where_a_report_is_none(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = record.read(ran / "out").requests[0].ids[0]
    before = sorted(ran.rglob("*"))
    for more, told in (
        (("--report", str(ran / "store")), "record.json"),
        (("--cache", str(ran / "out")), "memory maps"),
    ):
        assert purged(ran, [one], "--report", str(ran / "out"), *more) == 2
        assert told in capsys.readouterr().err
    assert {path for path in ran.rglob("*") if path.name != "gone.txt"} == set(before)


def test_unknown_ids_are_named(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = record.read(ran / "out").requests[0].ids[0]
    size = len(list(Store(ran / "store").entries()))
    strangers = [f"digts/{row}" for row in range(5)]
    assert purged(ran, strangers) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'digts/0', 'digts/1', 'digts/2' and 2 more" in error
    assert len(list(Store(ran / "store").entries())) == size
    assert purged(ran, [*strangers, one]) == 0
    assert "warning: 5 of 6 ids" in capsys.readouterr().out
    assert len(list(Store(ran / "store").entries())) < size


@pytest.mark.parametrize("command", ["store ls", "store verify", "store gc", "purge --ids gone.txt"])
@pytest.mark.parametrize("place", ["missing", "other"])
def test_a_folder_that_is_no_store_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other" / "tmp").mkdir(parents=True)
    (tmp_path / "other" / "tmp" / "mine").write_text("of the user")
    (tmp_path / "gone.txt").write_text("digits/0")
    before = sorted(tmp_path.rglob("*"))
    assert main([*command.split(), "--store", place]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{place}: got")
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_purged_can_be_made_again(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = record.read(ran / "out")
    assert purged(ran, first.requests[0].ids[:1], "--report", str(ran / "out")) == 0
    assert tiny(ran, *UMA) == 0
    again = record.read(ran / "out")
    assert [cell.measures for cell in again.cells] == [cell.measures for cell in first.cells]
    assert (ran / "out" / panels.FILE).exists()
    assert Store(ran / "store").verify() == []


# memory maps


def mapped(folder: Path, *more: str) -> int:
    """An audit of a table whose decoded values are above the limit."""
    (folder / "people.csv").write_text(people())
    table = [
        "--data",
        str(folder / "people.csv"),
        "--limit",
        "90",
        "--set",
        "table.id=key",
        "--set",
        "table.memory_limit=0",
    ]
    return tiny(folder, *table, "--set", "table.label=town", *more)


def test_purge_finds_the_maps_of_other_caches(tmp_path: Path, own_cache: Path) -> None:
    other, third = tmp_path / "maps of one", tmp_path / "maps of another"
    for cache in (own_cache, other, third):
        assert mapped(tmp_path, "--set", f"table.cache={cache}") == 0
        assert len(list(memory_map.maps(cache))) == 1
    one = record.read(tmp_path / "out").requests[0].ids[0]
    # the report tells of the third, since its audit was the last one there
    assert purged(tmp_path, [one], "--cache", str(other), "--report", str(tmp_path / "out")) == 0
    assert [path for cache in (own_cache, other, third) for path in memory_map.maps(cache)] == []


def test_redacting_leaves_no_memory_map(tmp_path: Path, own_cache: Path) -> None:
    assert mapped(tmp_path) == 0
    plain = record.read(tmp_path / "out")
    assert len(list(memory_map.maps(own_cache))) == 1
    for _ in range(2):  # with a map of an earlier run, and without one
        assert mapped(tmp_path, "--redact") == 0
        assert [path for path in own_cache.rglob("*") if path.is_file()] == []
    found = record.read(tmp_path / "out")
    assert [cell.measures for cell in found.cells] == [cell.measures for cell in plain.cells]


def test_redacting_leaves_no_memory_map_where_the_audit_is_refused(tmp_path: Path, own_cache: Path) -> None:
    assert mapped(tmp_path, "--redact", "--forget", "class=nobody") == 2
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


# redacting


def test_redacting_takes_earlier_contents_out_of_store_and_report(
    ran: Path, digits: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lookalikes(ran / "store", digits)
    assert lookalikes(ran / "out", digits)
    plain = record.read(ran / "out")
    assert tiny(ran, *UMA, "--redact") == 0
    assert "made 0 models and 0 score sets" in capsys.readouterr().out
    assert lookalikes(ran, digits) == []
    assert not list(ran.rglob("record-*.png"))
    assert "Attacked images" not in (ran / "out" / "report.html").read_text()
    redacted = record.read(ran / "out")
    assert redacted.redacted
    assert [cell.measures for cell in redacted.cells] == [cell.measures for cell in plain.cells]
    store = Store(ran / "store")
    assert store.verify() == []
    one = plain.requests[0].ids[0]
    assert any(one in store.held(entry.holds) for entry in store.entries() if entry.kind == "scores")


def test_redacting_takes_what_an_earlier_run_recovered_out_of_the_store(tmp_path: Path) -> None:
    inversion = ["--attack", "feature_inversion", "--set", "feature_inversion.iterations=2"]
    quick = [
        *inversion,
        "--set",
        "feature_inversion.extractor_width=2",
        "--set",
        "feature_inversion.extractor_epochs=1",
    ]
    deletion = [*quick, "--forget", "random=2", "--unlearn", "single_gradient"]
    guesses = tmp_path / "store" / "artifacts" / "guess"
    assert tiny(tmp_path, *deletion) == 0
    assert list(guesses.rglob("manifest.json"))
    plain = record.read(tmp_path / "out")
    for _ in range(2):  # scores from the store, then scores made anew
        assert tiny(tmp_path, *deletion, "--redact") == 0
        assert list(guesses.rglob("manifest.json")) == []
        assert not (tmp_path / "out" / panels.FILE).exists()
        assert record.read(tmp_path / "out").leaks == plain.leaks
        shutil.rmtree(tmp_path / "store" / "artifacts" / "scores")


def test_a_plain_audit_after_a_redacted_one_makes_the_images(
    tmp_path: Path, attacked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny(tmp_path, *UMA, "--redact") == 0
    assert not (tmp_path / "out" / panels.FILE).exists()
    assert tiny(tmp_path, *UMA) == 0
    for mine, theirs in zip(panels.load(tmp_path / "out"), panels.load(attacked / "out"), strict=True):
        assert np.array_equal(mine.attacked, theirs.attacked)
    assert list((tmp_path / "out" / "figures").glob("record-*.png"))
    capsys.readouterr()
    assert tiny(tmp_path, *UMA) == 0
    assert "made 0 models and 0 score sets" in capsys.readouterr().out
