"""What a user wrote in a package of their own takes part in an audit as `my_package.module:Class`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from palimpsest import contract, record
from palimpsest.cli import main
from palimpsest.contract.bench import Bench
from palimpsest.record import Record
from tests.command_line import TINY, changed
from tests.contract.situations import bench as shared_bench

GUIDE = (Path(__file__).parents[1] / "docs" / "guide.md").read_text(encoding="utf-8")

ATTACK = '''
from dataclasses import dataclass

import numpy as np
import torch

from palimpsest import Attack, ThreatModel, setting
from palimpsest.attack.base import Guess
from palimpsest.measures.intervals import mean
from palimpsest.types import Scores


@dataclass(frozen=True)
class Confidence(Attack):
    """Mean of a power of the true class's posterior on the forgotten records. Bounds nothing."""

    threat = ThreatModel(
        roles=("R3",), goals=("G3",), knowledge="K3", phases=("P3",), sees="posterior", models="after",
        knows=("forget_set",),
    )
    about = "how sure the model is of the forgotten records"
    primary = "confidence.mean"

    power: float = setting(1.0, "exponent", source="a test")

    def observe(self, view, *, rng):
        forgotten = view.know("forget_set")
        batch = forgotten.batch()
        sure = view.after.posterior(batch).gather(1, batch.targets[:, None]).flatten()
        return Guess({"sure": sure**self.power}, {"ids": forgotten.ids.tolist()}, queries=view.queries)

    def score(self, guess, case):
        return Scores("record", np.asarray(guess.info["ids"]), {"sure": guess.tensors["sure"].numpy()})

    def measure(self, scores):
        return (mean("confidence.mean", scores["sure"]),)
'''

DATA = '''
from dataclasses import dataclass

import torch

from palimpsest import Dataset, setting
from palimpsest.types import Examples


@dataclass(frozen=True)
class Blobs(Dataset):
    """Three clouds of points."""

    about = "three clouds of points in the plane"

    records: int = setting(240, "how many", source="a test")

    def load(self):
        rng = torch.Generator().manual_seed(0)
        targets = torch.arange(self.records) % 3
        points = torch.randn(self.records, 2, generator=rng) + 4 * torch.nn.functional.one_hot(targets, 3)[:, :2]
        examples = Examples.of({"features": points.float()}, targets, [f"blob/{i:04d}" for i in range(self.records)])
        return self.part("blobs", "features", examples, ("a", "b", "c"))
'''

BROKEN = '''
from dataclasses import dataclass

import numpy as np
import torch

from my_package.attacks import Confidence
from palimpsest.measures.intervals import mean
from palimpsest.types import Scores
from palimpsest.unlearn.base import Unlearner


@dataclass(frozen=True)
class Idle(Unlearner):
    """Does nothing, and counts nothing. Guarantees nothing."""

    def update(self, model, trained, retain, forget, *, rng, meter):
        pass


@dataclass(frozen=True)
class Careless(Unlearner):
    """Changes the model that went in, another way each time, and says that it is exact."""

    guarantee = "exact"

    def update(self, model, trained, retain, forget, *, rng, meter):
        with torch.no_grad():
            for mine, theirs in zip(model.parameters(), trained.model.parameters()):
                theirs.add_(1e-3)
                mine.copy_(theirs + np.random.rand())


@dataclass(frozen=True)
class Uncounted(Unlearner):
    """A gradient step that it does not tell of. Guarantees nothing."""

    def update(self, model, trained, retain, forget, *, rng, meter):
        trained.task.loss(model, forget.batch()).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.grad)


@dataclass(frozen=True)
class Crashes(Unlearner):
    """Raises."""

    def update(self, model, trained, retain, forget, *, rng, meter):
        raise KeyError("no such thing")


@dataclass(frozen=True)
class Greedy(Confidence):
    """Reaches for weights that its threat model does not give it."""

    def observe(self, view, *, rng):
        view.after.weights()


@dataclass(frozen=True)
class Blind(Confidence):
    """Guesses by luck, and measures by it."""

    def score(self, guess, case):
        scores = super().score(guess, case)
        return Scores(scores.unit, scores.ids, {"sure": np.random.default_rng().random(len(scores.ids))})

    def measure(self, scores):
        return (mean("confidence.mean", np.random.default_rng().random(9)),)


def logits_of_another_shape(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes + 1))


@dataclass(frozen=True)
class Loose:
    """Of no kind."""
'''


def block(path: str) -> str:
    """The guide's code for this file."""
    found = re.search(rf"```python\n# {re.escape(path)}\n(.*?)```", GUIDE, re.DOTALL)
    assert found, f"the guide has no code for {path}"
    return found[1]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's package in the current folder, with an attack, a data set and broken things beside its code."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    files = {
        "__init__": "", "models": block("my_package/models.py"), "methods": block("my_package/methods.py"),
        "attacks": ATTACK, "data": DATA, "broken": BROKEN,
    }  # fmt: skip
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)  # nothing else: the current folder is searched
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return shared_bench()


@pytest.fixture
def one_bench(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of well-behaved things share their models, which saves training them again."""
    monkeypatch.setattr("palimpsest.contract._bench", lambda subject: bench)


def audited(folder: Path, *options: str) -> Record:
    assert main(["audit", *changed(*options), "--store", str(folder / "store"), "--out", str(folder / "out")]) == 0
    return record.read(folder / "out")


def test_an_unlearner(package: Path) -> None:
    name = "my_package.methods:Halve"
    done = audited(
        package, "--unlearn", f"retrain,{name}", "--set", f"{name}.factor=0.25", "--verify", "accuracy,retrain_gap"
    )
    assert [row.unlearner for row in done.verdicts] == ["retrain", name]
    mine = [cell for cell in done.cells if cell.unlearner == name]
    assert {cell.attack or cell.verifier for cell in mine} == {"confidence_membership", "accuracy", "retrain_gap"}
    assert all(cell.status == "ok" and cell.settings == {"factor": 0.25} for cell in mine)
    assert any(row.unlearner == name and row.minus == "retrained" for row in done.comparisons)
    assert name in (package / "out" / "report.html").read_text()


def test_an_edited_unlearner_is_another_one(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where what was edited is a module beside its own."""
    methods, amount = package / "my_package" / "methods.py", package / "my_package" / "amount.py"
    amount.write_text("FACTOR = 0.5\n")
    methods.write_text(methods.read_text().replace("import torch\n", "import torch\nfrom my_package import amount\n"))

    def again() -> str:
        for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
            del sys.modules[name]
        capsys.readouterr()
        audited(package, "--unlearn", "my_package.methods:Halve")
        return capsys.readouterr().out

    again()
    assert "made 0 models" in again()
    amount.write_text("FACTOR = 0.25\n")
    assert "made 1 models" in again()


def test_a_setting_that_it_does_not_have(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "my_package.methods:Halve"
    assert main(["audit", *changed("--unlearn", name, "--set", f"{name}.fctor=1")]) == 2
    assert "did you mean 'factor'?" in capsys.readouterr().err


def test_a_model_and_an_edited_one(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The guide's model, named by the function that makes it; an edited source is another model."""
    done = audited(package, "--model", "my_package.models:make")
    assert done.model["target"] == "my_package.models:make"
    assert all(cell.status == "ok" for cell in done.cells)
    capsys.readouterr()
    audited(package, "--model", "my_package.models:make")
    assert "made 0 models" in capsys.readouterr().out
    source = package / "my_package" / "models.py"
    source.write_text(source.read_text().replace("channels, 16", "channels, 8").replace("16 * height", "8 * height"))
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]
    audited(package, "--model", "my_package.models:make")
    assert "made 3 models" in capsys.readouterr().out


def test_an_attack(package: Path) -> None:
    name = "my_package.attacks:Confidence"
    done = audited(package, "--attack", name, "--set", f"{name}.power=2")
    mine = [cell for cell in done.cells if cell.attack == name]
    assert {cell.target for cell in mine} == {"original", "retrained", "unlearned"}
    assert all(cell.attack_settings == {"power": 2.0} and cell.measures[0].name == "confidence.mean" for cell in mine)
    value = {cell.target: cell.measures[0].value for cell in mine}
    assert value["original"] > value["retrained"]


def test_a_data_set(package: Path) -> None:
    options = [word for word in TINY if word not in ("--data", "digits", "--limit", "200")]
    name = "my_package.data:Blobs"
    command = ["audit", *options, "--data", name, "--set", f"{name}.records=300", "--out", "out", "--store", "store"]
    assert main(command) == 0
    done = record.read(package / "out")
    assert done.data["name"] == name
    assert done.data["train"] + done.data["validation"] + done.data["test"] == 300


@pytest.mark.parametrize(
    "target",
    ["my_package.methods:Halve", "my_package.models:make", "my_package.attacks:Confidence", "my_package.data:Blobs"],
)
@pytest.mark.usefixtures("one_bench")
def test_check_passes_what_keeps_the_contract(package: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", target]) == 0
    assert "FAILED" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "failing"),
    [
        ("my_package.broken:Idle", {"moves the weights and drops the forgotten ids"}),
        (
            "my_package.broken:Careless",
            {
                "leaves the model that goes in as it is",
                "same stream, same weights",
                "is exact if it says so",
            },
        ),
        ("my_package.broken:Uncounted", {"reports its cost"}),
        ("my_package.broken:Crashes", set(contract.checks("unlearners")) - {"is exact if it says so"}),
        ("my_package.broken:logits_of_another_shape", set(contract.checks("models"))),
    ],
)
def test_check_fails_what_does_not(
    package: Path, capsys: pytest.CaptureFixture[str], target: str, failing: set[str]
) -> None:
    assert main(["check", target]) == 2
    said = capsys.readouterr()
    assert set(re.findall(r"FAILED  (.*?):", said.out)) == failing
    assert f"got {len(failing)} of" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.usefixtures("one_bench")
def test_check_finds_an_attack_that_guesses_by_luck(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "my_package.broken:Blind"]) == 2
    failing = set(re.findall(r"FAILED  (.*?):", capsys.readouterr().out))
    assert failing >= {"same stream, same scores", "measures depend on the scores alone"}


@pytest.mark.usefixtures("one_bench")
def test_check_finds_an_attack_that_reaches_beyond_its_view(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "my_package.broken:Greedy"]) == 2
    said = capsys.readouterr().out
    of_one_model = set(contract.checks("attacks")) - {"reads a known leak", "is at chance on its placebo"}
    of_one_model -= {"hands in records of its own"}
    assert set(re.findall(r"FAILED  (.*?):", said)) == of_one_model - {"declares its threat model"}
    assert "BeyondView" in said


def test_check_of_something_of_no_kind(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "my_package.broken:Loose"]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_class_of_no_kind_is_refused_in_an_audit(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *changed("--unlearn", "my_package.broken:Loose")]) == 2
    assert "kind 'unlearners'" in capsys.readouterr().err


def test_the_bench_tells_original_from_retrained(bench: Bench) -> None:
    """Otherwise the checks of attacks would judge nothing."""
    case = bench.cases[0]
    batch = case.forget.batch()
    wrong = [case.task.error(model.model, batch).mean().item() for model in (case.original, case.subject)]
    assert wrong[0] < 0.2
    assert wrong[1] > 0.9
