"""The commands, in this process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from palimpsest import catalog, options, presets, record
from palimpsest.cli import main, present
from palimpsest.models.files import read_weights
from palimpsest.record import Record, VerdictRow
from palimpsest.store import Store
from palimpsest.types import Finding
from tests.command_line import TINY, tiny

LINEAR = ["--data", "digits", "--limit", "200", "--model", "linear", "--set", "recipe.epochs=2", "--threads", "1"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an audit that ran, with its store and output."""
    folder = tmp_path_factory.mktemp("ran")
    assert tiny(folder) == 0
    return folder


def test_an_audit_writes_record_and_report_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny(tmp_path) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "inconclusive" in said.out
    assert "warning single-seed" in said.out
    for name in ("record.json", "report.html"):
        assert str(tmp_path / "out" / name) in said.out.replace("\n", "")
        assert (tmp_path / "out" / name).is_file()
    found = record.read(tmp_path / "out")
    assert found.command.startswith("palimpsest audit --data digits --limit 200")
    assert [row.unlearner for row in found.verdicts] == ["retrain"]
    assert found.seeds == [0]


def test_a_second_audit_makes_nothing(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["audit", *TINY, "--store", str(ran / "store"), "--out", str(tmp_path / "again")]) == 0
    assert "made 0 models and 0 score sets" in capsys.readouterr().out


def test_later_requests_follow_in_order(tmp_path: Path) -> None:
    assert tiny(tmp_path, "--forget", "class=0", "--forget", "random=5") == 0
    assert [request.selection for request in record.read(tmp_path / "out").requests] == ["class=0", "random=5"]


def verdicts(*findings: str) -> Record:
    rows = [VerdictRow(unlearner=f"m{i}", verdict=Finding(f), because=["it is"]) for i, f in enumerate(findings)]
    parts = {"versions": {}, "hardware": {}, "data": {}, "model": {}, "learner": {}, "recipe": None, "requests": []}
    return Record(command="", started="", seconds=0, seeds=[0], cells=[], verdicts=rows, **parts)


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        (["forgotten"], 0),
        (["forgotten", "forgotten"], 0),
        *((["forgotten", str(finding)], 3) for finding in Finding if finding != Finding.FORGOTTEN),
    ],
)
def test_require_forgotten(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    findings: list[str],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("palimpsest.pipeline.audit", lambda *args, **named: verdicts(*findings))
    assert tiny(tmp_path, "--require", "forgotten") == status
    assert tiny(tmp_path) == 0
    assert all(finding in capsys.readouterr().out for finding in findings[:1])


def test_require_looks_at_real_verdicts(ran: Path, tmp_path: Path) -> None:
    command = ["audit", *TINY, "--store", str(ran / "store"), "--out", str(tmp_path), "--require", "forgotten"]
    assert main(command) == 3
    assert (tmp_path / "record.json").exists()


# Choices: presets, settings files, options


def test_without_options_the_preset_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[SimpleNamespace] = []

    def instead(plan: object, store: object, out: Path, **named: object) -> Record:
        seen.append(SimpleNamespace(plan=plan, store=store, out=out))
        return verdicts("forgotten")

    monkeypatch.setattr("palimpsest.pipeline.audit", instead)
    monkeypatch.chdir(tmp_path)
    assert main(["audit"]) == 0
    assert main(["audit", "--seeds", "1"]) == 0
    assert main(["audit", "--unlearn", "finetune", "--set", "finetune.lr=0.5"]) == 0
    whole, fewer, one = (entry.plan for entry in seen)
    eight = {
        "retrain",
        "finetune",
        "gradient_ascent",
        "random_label",
        "l1_sparse",
        "salun",
        "influence",
        "single_gradient",
    }
    assert {catalog.name_of(method) for method in whole.unlearners} == eight, "those with settings that forget there"
    assert [catalog.name_of(attack) for attack in whole.attacks] == ["uma", "confidence_membership"]
    assert (whole.scale, whole.seeds, whole.controls) == ("small", (0, 1, 2), 2)
    assert (fewer.scale, fewer.seeds) == ("custom", (0,))
    assert fewer.unlearners == whole.unlearners
    assert [(catalog.name_of(method), method.lr) for method in one.unlearners] == [("finetune", 0.5)]
    assert one.model == whole.model
    assert seen[0].out == Path("out/digits")
    assert seen[0].store.root == Path(".palimpsest/store")


@pytest.mark.parametrize("name", presets.preset_names())
def test_every_preset_is_a_plan(name: str) -> None:
    chosen = presets.read(name)
    assert options.make_plan(chosen, asked=tuple(chosen.settings)).scale == chosen.scale
    assert chosen.about


def test_options_win_over_a_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(
        json.dumps(
            {
                "data": "digits",
                "limit": 100,
                "recipe": {"epochs": 3, "lr": 0.2},
                "seeds": 2,
                "settings": {"salun": {"lr": 0.3, "epochs": 4}, "uma": {"epsilon": "8/255,0.5"}, "model": {"width": 3}},
            }
        )
    )
    given = presets.choices(
        {"seeds": "1", "recipe": {"lr": 0.4}, "settings": {"salun": {"epochs": "5"}}, "forget": ["class=1"]}, "--"
    )
    plan = options.make_plan(given.over(presets.read(str(file))))
    assert plan.seeds == (0,)
    assert (plan.recipe.epochs, plan.recipe.lr) == (3, 0.4)
    salun = next(method for method in plan.unlearners if catalog.name_of(method) == "salun")
    assert (salun.lr, salun.epochs) == (0.3, 5)
    assert plan.attacks[0].epsilon == (8 / 255, 0.5)  # type: ignore[attr-defined]
    assert plan.model == catalog.make("models", "convnet", {"width": 3})
    assert plan.data.limit == 100


def test_the_model_follows_the_kind_of_data() -> None:
    chosen = {"forget": ["random=5"], "unlearn": ["retrain"], "attack": [], "verify": ["accuracy"]}
    assert catalog.name_of(options.plan(data="digits", **chosen).model) == "convnet"
    assert catalog.name_of(options.plan(data="breast_cancer", **chosen).model) == "mlp"


def test_aliases_and_repeated_methods() -> None:
    chosen = presets.choices(
        {"data": "digits", "model": "linear", "forget": ["class=0"], "unlearn": ["FT", "finetune", "RL"],
         "settings": {"finetune#2": {"lr": 0.7}}}
    )  # fmt: skip
    plan = options.make_plan(chosen, asked=("finetune#2",))
    assert [catalog.name_of(method) for method in plan.unlearners] == ["finetune", "finetune", "random_label"]
    assert [method.lr for method in plan.unlearners[:2]] == [0.01, 0.7]  # type: ignore[attr-defined]


# Looking


@pytest.mark.parametrize("kind", [None, *catalog.FOLDERS])
def test_list(kind: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(present, "console", lambda: Console(width=500))  # so that no cell is wrapped
    assert main(["list", *([kind] if kind else [])]) == 0
    said = capsys.readouterr().out
    for each in [kind] if kind else catalog.FOLDERS:
        for member, cls in catalog.members(each).items():
            assert (member.replace("_", "-") if each == "studies" else member) in said
            assert all(alias in said for alias in getattr(cls, "aliases", ())), member


def test_the_papers_acronyms_are_understood() -> None:
    names = ("noisy_gradient_descent", "negative_gradient", "negative_gradient", "exact_unlearning_k")
    names += ("catastrophic_forgetting_k", "scrub_rewind", "image_to_image")
    acronyms = ("NGD", "NegGrad+", "NGP", "EU-k", "CF-k", "SCRUB+R", "I2I")
    assert tuple(options.resolved("unlearners", acronym) for acronym in acronyms) == names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("salun", ("SalUn", "guarantee: none", "share", "public code", "0.013")),
        ("FT", ("finetune (unlearners)", "GD", "learning rate")),
        (
            "uma",
            (
                "adversary: auditor",
                "white-box (K1)",
                "post-unlearning (P3)",
                "epsilon",
                "does not prove",
                "Algorithm 1",
            ),
        ),
        ("recipe", ("epochs", "momentum")),
        ("digits", ("limit", "8×8")),
        ("palimpsest.unlearn.salun:SalUn", ("(unlearners)", "SalUn")),
    ],
)
def test_show(name: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(word in said for word in words), said


@pytest.mark.parametrize("kind", catalog.FOLDERS)
def test_every_member_can_be_shown(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in catalog.members(kind):
        assert main(["show", name]) == 0
        said = capsys.readouterr().out
        assert name in said
        assert "(not documented)" not in said


def test_report_again(ran: Path, tmp_path: Path) -> None:
    page = ran / "out" / "report.html"
    page.unlink()
    assert main(["report", str(ran / "out")]) == 0
    assert page.exists()


@pytest.mark.parametrize(("form", "word"), [("text", "first:"), ("csv", "request,model,by"), ("latex", r"\toprule")])
def test_compare(ran: Path, form: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(ran / "out"), str(ran / "out"), "--format", form]) == 0
    said = capsys.readouterr().out
    assert word in said
    assert "forget_accuracy" in said.replace("\\", "")


def test_check_passes_what_the_package_brings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "digits"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) > 2
    assert all(line.startswith("passed") for line in said)


# Keeping


def test_store_commands(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(ran / "store")
    assert main(["store", "ls", "--store", folder]) == 0
    said = capsys.readouterr().out
    assert said.count("model") == 3
    assert "10 artifacts" in said
    assert main(["store", "verify", "--store", folder]) == 0
    assert main(["store", "gc", "--store", folder]) == 0
    assert "freed 0 bytes" in capsys.readouterr().out


def test_purge_takes_records_out_of_store_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    more = ["--attack", "uma", "--set", "uma.steps=1", "--unlearn", "retrain,finetune"]
    assert tiny(tmp_path, *more) == 0
    out, store = tmp_path / "out", Store(tmp_path / "store")
    one = record.read(out).requests[0].ids[0]
    (tmp_path / "gone.txt").write_text(one)
    damaged = next((out / "scores").glob("*"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert (out / "panels.safetensors").exists()
    assert list((out / "figures").glob("record-*.png"))
    assert main(["purge", "--ids", str(tmp_path / "gone.txt"), "--store", str(store.root), "--report", str(out)]) == 0
    kept = list(store.entries())
    assert [entry.spec.get("unlearner", {}).get("name") for entry in kept if entry.kind == "model"] in (
        [None, "retrain"],
        ["retrain", None],
    )
    assert all(one not in store.held(entry.holds) for entry in kept)
    assert not (out / "panels.safetensors").exists()
    assert not list((out / "figures").glob("record-*.png"))
    assert not damaged.exists(), "it might have held the record"
    assert all(one not in record.read_scores(out, path.stem).ids for path in (out / "scores").glob("*"))
    assert (out / "report.html").exists()
    assert tiny(tmp_path, *more) == 0, "what was purged can be made again from the source"


def test_redacted_audits_keep_no_images(tmp_path: Path) -> None:
    def images() -> list[str]:
        """Arrays of 8×8 images in the store: convolutions are 3×3 and there are none here."""
        stored = ((path, read_weights(path)) for path in (tmp_path / "store").rglob("tensors.safetensors"))
        return [name for _, state in stored for name, value in state.items() if value.shape[-2:] == (8, 8)]

    attack = ("--attack", "uma", "--set", "uma.steps=1")
    assert tiny(tmp_path, *attack, "--redact") == 0
    assert record.read(tmp_path / "out").redacted
    assert images() == []
    assert not (tmp_path / "out" / "panels.safetensors").exists()
    assert not list(tmp_path.rglob("record-*.png"))
    shutil.rmtree(tmp_path / "store")
    assert tiny(tmp_path, *attack) == 0
    assert images(), "without --redact the attacked images are kept"


# Single steps


def test_train_gives_the_models_of_the_audit(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one store nothing is trained again; the weights are those that the audit has."""
    original, control = tmp_path / "a.safetensors", tmp_path / "c.safetensors"
    store = ["--store", str(ran / "store")]
    before = len(list(Store(ran / "store").entries()))
    assert main(["train", *LINEAR, *store, "--out", str(original)]) == 0
    assert main(["train", *LINEAR, *store, "--out", str(control), "--exclude", "class=0"]) == 0
    assert len(list(Store(ran / "store").entries())) == before
    assert "174 records" in capsys.readouterr().out
    assert not torch.equal(*(read_weights(path)["network.1.weight"] for path in (original, control)))


def test_unlearn_writes_new_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (tmp_path / f"{name}.safetensors" for name in "abc")
    assert main(["train", *LINEAR, "--out", str(first), "--store", str(tmp_path / "store")]) == 0
    sound = first.read_bytes()
    forget = ["--forget", "class=0", "--forget", "random=3"]
    command = ["unlearn", *LINEAR, "--weights", str(first), *forget, "--with"]
    assert main([*command, "FT", "--set", "finetune.epochs=1", "--out", str(second)]) == 0
    assert first.read_bytes() == sound
    assert second.read_bytes() != sound
    capsys.readouterr()
    assert main([*command, "retrain", "--out", str(third)]) == 0
    assert "150 records left" in capsys.readouterr().out
    bare = [word for word in command if word not in ("--set", "recipe.epochs=2")]
    assert main([*bare, "retrain", "--out", str(tmp_path / "d.safetensors")]) == 2
    assert "pass --recipe" in capsys.readouterr().err


def test_what_weights_were_trained_on_is_read_and_never_derived_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `train --exclude`, what was excluded cannot be "forgotten", whatever the seed of a selection."""
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    store = ["--store", str(tmp_path / "store")]
    assert main(["train", *LINEAR, *store, "--exclude", "random=60", "--seed", "1", "--out", str(first)]) == 0
    kept = first.with_suffix(".ids").read_text().split()
    whole = {f"digits/{index}" for index in range(1797)}
    (tmp_path / "gone.txt").write_text("\n".join(sorted(whole - set(kept))))
    (tmp_path / "one.txt").write_text(kept[0])
    command = ["unlearn", *LINEAR, "--weights", str(first), "--with", "finetune", "--set", "finetune.epochs=1"]
    capsys.readouterr()
    assert main([*command, "--forget", f"ids={tmp_path / 'gone.txt'}", "--out", str(second)]) == 2
    assert not second.exists()
    assert main([*command, "--forget", "random=10", "--seed", "5", "--out", str(second)]) == 0
    left = second.with_suffix(".ids").read_text().split()
    assert set(left) < set(kept)
    assert len(left) == len(kept) - 10
    first.with_suffix(".ids").write_text("\n".join(kept[1:]))
    capsys.readouterr()
    assert main([*command, "--forget", "random=10", "--out", str(second)]) == 2
    assert "put the list back" in capsys.readouterr().err
    first.with_suffix(".ids").unlink()
    assert main([*command, "--forget", "random=10", "--out", str(second)]) == 2
    assert "--train-ids" in capsys.readouterr().err
    (tmp_path / "train.txt").write_text("\n".join(kept))
    ids = ["--train-ids", str(tmp_path / "train.txt"), "--forget", f"ids={tmp_path / 'one.txt'}"]
    assert main([*command, *ids, "--out", str(second)]) == 0


# The program


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    for command in ("audit", "train", "unlearn", "list", "show", "report", "compare", "check", "purge", "store"):
        assert command in said
    assert main(["audit", "--help"]) == 0
    assert "--require" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from palimpsest.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
