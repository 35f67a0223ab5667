"""A study end to end: audits, tables beside the published numbers, claims, bundle; and every way in which it refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from palimpsest import catalog
from palimpsest import record as records
from palimpsest.cli import main
from palimpsest.errors import BadInput, ContractError, PalimpsestError, UnknownName
from palimpsest.measures.intervals import binomial
from palimpsest.reproduce import Asked, again, chosen, recompute, reproduce, study
from palimpsest.reproduce.bundle import export
from palimpsest.reproduce.page import figures
from palimpsest.reproduce.reading import Reading
from palimpsest.reproduce.result import ClaimRow, Result, read
from palimpsest.store import Store
from palimpsest.studies.base import Claim, Where
from tests.reproduce.tiny import MODELS, Sizes, Tiny

NAME = "tests.reproduce.tiny:Tiny"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """Folder, store and result of one run."""
    place = tmp_path_factory.mktemp("study")
    out, store = place / "out", place / "store"
    return out, store, reproduce(Tiny(), Asked(), Store(store), out, command="as asked")


def test_cells_stand_beside_what_the_paper_prints_and_are_the_audits_own(made: tuple[Path, Path, Result]) -> None:
    out, _, result = made
    record = records.read(out / "parts" / "3-steps")
    cells = {(cell.row, cell.column): cell for cell in result.cells if cell.table == "Table 0"}
    assert [cells[row, "UA"].published for row in ("Original", "retrain", "FT")] == [None, 0.0, 40.0]
    for row, target in (("Original", "original"), ("retrain", "retrained"), ("FT", "unlearned")):
        cell = next(c for c in record.cells if c.attack == "uma" and c.target == target)
        own = next(m for m in cell.measures if m.name == "uma.forget_accuracy" and m.at == {"epsilon": 0.1})
        found = cells[row, "UA"].measured
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((100 * own.value, 100 * own.low, 100 * own.high))
        assert (found.n, found.seeds) == (own.n, 1)
    assert {cell.measured for cell in result.cells if cell.table == "Table 00"} == {None}
    mine = [r for r in record.comparisons if (r.minus, r.difference.at) == ("retrained", {"epsilon": 0.1})]
    row = next(r for r in mine if r.difference.name == "uma.forget_accuracy")
    over = cells["FT", "UA over retrain"].measured
    assert over is not None
    assert (over.value, over.low) == pytest.approx((100 * row.difference.value, 100 * row.difference.low))
    assert cells["retrain", "UA over retrain"].measured is None
    for column, name in (("residual", "uma.residual_knowledge"), ("area", "uma.residual_area")):
        row = next(r for r in record.comparisons if r.minus == "controls" and r.difference.name == name)
        found = cells["FT", column].measured
        assert found is not None
        ends = (row.difference.value, row.difference.low, row.difference.high)
        assert (found.value, found.low, found.high) == pytest.approx([100 * end for end in ends])
        assert cells["retrain", column].measured is None
    share = cells["FT", "TA, share of GA's"].measured
    assert share is not None
    tuned, ascended = (
        next(m.value for c in record.cells if c.unlearner == name for m in c.measures if m.name == "test_accuracy")
        for name in ("finetune", "gradient_ascent")
    )
    assert tuned != ascended
    assert share.value == pytest.approx(100 * tuned / ascended)
    assert share.low < share.value < share.high
    assert cells["retrain", "TA, share of GA's"].measured is None
    cost = cells["FT", "k gradients"].measured
    assert cost is not None
    assert cost.value == next(c for c in record.cells if c.unlearner == "finetune").cost["samples"] / 1000 > 0


def test_claims_are_decided_by_intervals_that_hold_together(made: tuple[Path, Path, Result]) -> None:
    knows, retrained, nobody, nothing = made[2].claims
    assert knows.state == "held"
    assert retrained.state == "not held"
    assert (retrained.published, retrained.side, retrained.bound) == (0.0, "above", 0.9)
    assert nobody.state == "not run"
    assert nobody.value is None
    assert nothing.state == "not decidable", "a difference of nothing is neither above 0 nor below it"
    assert knows.level == pytest.approx(1 - 0.05 / 3), "three claims could be measured"
    assert retrained.value is not None
    cell = next(c for c in made[2].cells if (c.table, c.row, c.column) == ("Table 0", "retrain", "UA"))
    assert cell.measured is not None
    if retrained.value in (0.0, 1.0):
        assert retrained.high == pytest.approx(binomial(0, cell.measured.n, 1 - 0.05 / 3)[1])


def test_a_second_run_makes_nothing_and_finds_the_same(made: tuple[Path, Path, Result], tmp_path: Path) -> None:
    said: list[str] = []
    found = reproduce(Tiny(), Asked(), Store(made[1]), tmp_path, say=said.append)
    assert [line for line in said if line.startswith("made")] == 2 * [
        "made 0 models and 0 score sets; the rest came from the store"
    ]
    assert (found.cells, found.claims) == (made[2].cells, made[2].claims)


def test_large_numbers_are_printed_whole_and_tiny_ones_with_their_power_of_ten() -> None:
    told = {"text": "nearer", "state": "held", "side": "above", "bound": 0.0, "published": 1140778.0}
    row = ClaimRow(**told, value=40024.2, low=28795.6, high=51872.0, level=0.99, seeds=1)
    assert figures(row) == ("above 0", "40,024 [28,796, 51,872]", "1,140,778")
    tiny = ClaimRow(**{**told, "value": 2.34e-5, "low": 0.0, "high": 4e-4})
    assert figures(tiny)[1] == "2.3e-05 [0, 4.0e-04]"
    assert figures(ClaimRow(**{**told, "state": "not run", "published": None})) == ("above 0", "", "")


def test_the_page_shows_published_beside_measured_and_the_figure(made: tuple[Path, Path, Result]) -> None:
    out, _, result = made
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in (
        "Table 0",
        "paper: 94.5",
        "the retrained model knows the class",
        "not held",
        "not decidable",
        "Figure 0",
        "as asked",
    ):
        assert text in page
    assert "Not run at this scale: what the paper prints." in page, "of Table 00"
    assert re.search(r"forget accuracy against steps: Original from 100.0% to \d+.\d%; retrain from", page), "as shares"
    assert (out / "figures" / "curve-0.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "figures" / "bars-0-0.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"UA: Original 100; retrain [\d.]+; FT ", page), "a bar each row"
    assert (out / "figures" / "tradeoff-0.png").read_bytes().startswith(b"\x89PNG")
    assert "on the front: FT " in page
    assert read(out) == result


def test_the_page_shows_the_images_of_audits_that_are_pictured(made: tuple[Path, Path, Result], tmp_path: Path) -> None:
    """A drawing per model that the audit's own report shows, with what the model answered; none of other audits."""
    shutil.copytree(made[0], tmp_path / "copy")

    @dataclass(frozen=True)
    class Pictured(Tiny):
        pictured = ("3 steps", "never run")

    recompute(Pictured(), made[2].told, tmp_path / "copy")
    drawn = sorted(path.name for path in (tmp_path / "copy" / "figures").glob("*attacked*"))
    assert drawn == [f"3-steps-attacked-{place}.png" for place in range(len(drawn))]
    own = (made[0] / "parts" / "3-steps" / "report.md").read_text(encoding="utf-8")
    assert len(drawn) == own.count("| perturbation ×") >= 2
    page = (tmp_path / "copy" / "report.md").read_text(encoding="utf-8")
    assert page.count("original: says ") >= len(drawn)
    assert "What the attack does to forgotten records." in page
    assert "attacked" not in "".join(path.name for path in (made[0] / "figures").iterdir())


def test_only_columns_of_a_table_can_be_drawn() -> None:
    with pytest.raises(ContractError, match=r"table 'Table 0': got \['UAA'\] to be drawn"):
        replace(Tiny.tables[0], drawn=("UAA",))


def test_points_of_figures_and_trade_offs_are_numbers_of_the_result(made: tuple[Path, Path, Result]) -> None:
    _, _, result = made
    assert [(point.line, point.at) for point in result.points] == [(name, n) for name in MODELS for n in (1, 3)]
    drawn = next(point for point in result.points if (point.line, point.at) == ("FT", 3))
    told = next(cell for cell in result.cells if (cell.row, cell.column) == ("FT", "UA"))
    assert told.measured is not None
    assert drawn.measured.value == pytest.approx(told.measured.value / 100), "a share, not per cent"
    assert [(one.defence, one.setting) for one in result.tradeoffs] == [("FT", 1), ("FT", 3)]
    assert any(one.front for one in result.tradeoffs)
    assert all(one.beyond.value == pytest.approx(one.leak.value) for one in result.tradeoffs), "the placebo's is 0"


def test_a_bundle_is_recomputed_without_training_and_notices_every_change(
    made: tuple[Path, Path, Result], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    files = export(made[0], bundle)
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    found, same = again(Tiny(), bundle)
    assert same
    assert found.claims == made[2].claims
    with pytest.raises(BadInput, match="not empty"):
        export(made[0], bundle)
    altered = json.loads((bundle / "study.json").read_text())
    altered["cells"][0]["measured"]["value"] += 1
    (bundle / "study.json").write_text(json.dumps(altered))
    with pytest.raises(BadInput, match=r"study\.json: got another content"):
        again(Tiny(), bundle)
    (bundle / "manifest.json").unlink()
    assert again(Tiny(), bundle)[1] is False, "a number that the scores do not give"
    altered["cells"][0]["measured"]["value"] -= 1
    altered["points"][0]["measured"]["value"] += 1
    (bundle / "study.json").write_text(json.dumps(altered))
    assert again(Tiny(), bundle)[1] is False, "a point that the scores do not give"
    record = json.loads((bundle / "parts" / "3-steps" / "record.json").read_text())
    cell = next(c for c in record["cells"] if c["status"] == "ok")
    kept = cell["measures"][0]["value"]
    cell["measures"][0]["value"] = cell["measures"][0]["high"] = 0.999
    (bundle / "parts" / "3-steps" / "record.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="scores that do not give the record's numbers"):
        again(Tiny(), bundle)
    cell["measures"][0]["value"] = kept
    (bundle / "parts" / "3-steps" / "scores" / f"{cell['scores']}.safetensors").unlink()
    with pytest.raises(BadInput, match="no such file"):
        again(Tiny(), bundle)
    (bundle / "parts" / "3-steps" / "record.json").unlink()
    with pytest.raises(BadInput, match=r"record\.json"):
        again(Tiny(), bundle)


def test_a_failed_cell_pairs_no_other_seed(tmp_path: Path) -> None:
    """FT fails at seed 1: its claim is decided on seed 0 alone; where the control fails at seed 0 too, nothing is left to pair."""
    result = reproduce(Tiny(), Asked(seeds=2), Store(tmp_path / "store"), tmp_path)
    assert [claim.seeds for claim in result.claims] == [2, 2, 0, 2]
    path = tmp_path / "parts" / "3-steps" / "record.json"

    def fail(target: str, seed: int) -> Result:
        record = json.loads(path.read_text())
        for cell in record["cells"]:
            if (cell["target"], cell["seed"]) == (target, seed):
                cell.update(status="failed", reason="in this test", measures=[], scores=None)
        path.write_text(json.dumps(record))
        return recompute(Tiny(), result.told, tmp_path)

    assert [claim.seeds for claim in fail("unlearned", 1).claims] == [2, 2, 0, 1]
    left = fail("retrained", 0)
    assert [claim.seeds for claim in left.claims] == [2, 1, 0, 1]
    cells = {(cell.row, cell.column): cell.measured for cell in left.cells if cell.table == "Table 0"}
    assert cells["FT", "UA over retrain"] is None, "seed 0 of one, seed 1 of the other"
    gone = fail("retrained", 1)
    assert (gone.claims[1].state, gone.claims[1].reason) == ("failed", "in this test"), "not merely: not run"
    assert gone.claims[2].state == "not run"
    found = {(cell.row, cell.column): cell for cell in gone.cells if cell.table == "Table 0"}
    assert (found["retrain", "UA"].measured, found["retrain", "UA"].reason) == (None, "in this test")
    assert found["retrain", "residual"].reason == "in this test"
    assert found["Original", "residual"].reason == "", "nothing failed: there is no such number"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("in this test") >= 3


def test_warnings_of_the_audits_are_the_studys(made: tuple[Path, Path, Result], tmp_path: Path) -> None:
    """Every one, with its audit, in the result and on the page."""
    shutil.copytree(made[0], tmp_path / "copy")
    found = {}
    for part in ("1-steps", "3-steps"):
        path = tmp_path / "copy" / "parts" / part / "record.json"
        record = json.loads(path.read_text())
        found[part] = [warning["name"] for warning in record["warnings"]]
        record["warnings"].append({"name": f"odd-{part}", "about": "all", "message": "so & so", "meaning": "nothing"})
        path.write_text(json.dumps(record))
    result = recompute(Tiny(), made[2].told, tmp_path / "copy")
    told = [(warning.part, warning.name) for warning in result.warnings]
    expected = {part: [*names, f"odd-{part}"] for part, names in found.items()}
    assert told == [(part.replace("-", " "), name) for part, names in expected.items() for name in names]
    assert "so &amp; so" in (tmp_path / "copy" / "report.html").read_text(encoding="utf-8")


def test_what_was_spent_can_decide_a_claim(made: tuple[Path, Path, Result]) -> None:
    """Gradients are counted, not sampled: their interval is a point."""
    spent = {name: where | Where("3 steps", measure="cost.samples") for name, where in MODELS.items()}
    cells = records.read(made[0] / "parts" / "3-steps").cells
    counted = {
        name: next(c.cost["samples"] for c in cells if c.target == where.target) for name, where in spent.items()
    }

    @dataclass(frozen=True)
    class Frugal(Tiny):
        claims = tuple(
            Claim(
                f"FT costs {how} {times} times training",
                ((1.0, spent["FT"]), (-times, spent["Original"])),
                **{how: 0.0},
            )
            for how, times in (("below", 0.5), ("above", 0.5))
        )

    below, above = Reading(Frugal(), made[2].told, made[0]).result().claims
    assert below.value == pytest.approx(counted["FT"] - 0.5 * counted["Original"])
    assert (below.state, above.state) == ("held", "not held")
    assert below.low == below.value == below.high


def test_audits_run_one_after_another_add_up(made: tuple[Path, Path, Result], tmp_path: Path) -> None:
    for part in ("1 steps", "3 steps"):
        found = reproduce(Tiny(), Asked(only=(part,)), Store(made[1]), tmp_path)
    assert (found.cells, found.claims) == (made[2].cells, made[2].claims)


def test_a_result_of_another_study_is_not_opened(made: tuple[Path, Path, Result], tmp_path: Path) -> None:
    """What a bundle names is never imported: only what the user names is."""
    content = json.loads((made[0] / "study.json").read_text())
    content["told"]["study"] = "this:Zen"
    (tmp_path / "study.json").write_text(json.dumps(content))
    sys.modules.pop("this", None)
    with pytest.raises(BadInput, match="got a result of this:Zen"):
        again(Tiny(), tmp_path)
    assert "this" not in sys.modules
    content["told"].update(study=NAME, parts={"1 steps": "../elsewhere"})
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="folders that no audit was written to"):
        again(Tiny(), tmp_path)


def test_a_bundle_that_cannot_be_written_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").touch()
    assert main(["reproduce", NAME, "--store", str(tmp_path / "store"), "--export", str(tmp_path / "there")]) == 2
    assert "expected a new folder" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_seeds_threads_data_and_single_audits_are_chosen() -> None:
    found = chosen(Tiny(), Asked("paper", {"digits": "digits"}, ("1 steps",), seeds=5, threads=2))
    assert list(found) == ["1 steps"]
    assert (found["1 steps"].seeds, found["1 steps"].threads, found["1 steps"].limit) == (5, 2, 400)
    with pytest.raises(UnknownName, match="--only"):
        chosen(Tiny(), Asked(only=("2 steps",)))
    with pytest.raises(UnknownName, match="--data"):
        chosen(Tiny(), Asked(data={"cifar10": "."}))
    with pytest.raises(UnknownName, match="--scale"):
        chosen(Tiny(), Asked("tiny"))
    with pytest.raises(PalimpsestError, match="did you mean 'uma-table"):
        study("uma-table0")


def test_the_command_line_runs_exports_and_recomputes(
    made: tuple[Path, Path, Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--store", str(made[1]), "--out", str(tmp_path / "out"), "--export", str(tmp_path / "b")]
    assert main(["reproduce", NAME, *places]) == 0
    told = capsys.readouterr().out
    assert "Table 0: published | measured" in told
    assert "not decidable" in told
    assert f"warning {made[2].warnings[0].name}: " in told
    assert main(["reproduce", NAME, "--from", str(tmp_path / "b")]) == 0
    assert "recomputed from stored scores: the same numbers" in capsys.readouterr().out


def test_all_studies_are_run_whatever_one_of_them_does(
    made: tuple[Path, Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = "tests.reproduce.tiny:Broken"
    members, ours = catalog.members, {name: type(study(name)) for name in (broken, NAME)}
    monkeypatch.setattr(catalog, "members", lambda kind: ours if kind == "studies" else members(kind))
    assert main(["reproduce", "all", "--store", str(made[1]), "--data", "nobody=."]) == 2
    assert "--data: got 'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "a wrong name is told before anything is run"
    assert main(["reproduce", "all", "--store", str(made[1])]) == 2
    told = capsys.readouterr()
    assert f"{broken}: " in told.out
    assert f"1 of 2 that failed: {broken}" in told.err
    assert read(tmp_path / "out" / f"{NAME.replace(':', '-')}-small").claims == made[2].claims


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["reproduce", "uma-table9"], "did you mean 'uma-table"),
        (["reproduce", NAME, "--data", "digits"], "expected NAME=WHERE"),
        (["reproduce", NAME, "--data", "mnist=."], "--data"),
        (["reproduce", NAME, "--scale", "large"], "small"),
        (["reproduce", "all", "--only", "x"], "expected one study"),
        (["reproduce", NAME, "--from", "nowhere"], "expected a folder that `palimpsest reproduce` wrote"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert len(told.strip().splitlines()) == 1


def test_audits_of_other_parts_of_the_data_read_them_anew(tmp_path: Path) -> None:
    """Data are read once for audits that take the same of them, and again for those that take less."""
    result = reproduce(Sizes(), Asked(), Store(tmp_path / "store"), tmp_path / "out")
    sizes = {cell.row: cell.measured.n for cell in result.cells if cell.measured}
    assert sizes["20 private"] < sizes["40 private"]
