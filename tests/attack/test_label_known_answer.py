"""Label inference where the answer is known: a class that a single gradient takes back whole is named, whichever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.audit.small import run

from palimpsest.attack.leakage.label_inference import LabelInference
from palimpsest.data.digits import Digits
from palimpsest.learn.finetuned import Finetuned
from palimpsest.learn.recipe import Recipe
from palimpsest.models.linear import Linear
from palimpsest.unlearn.single_gradient import SingleGradient
from palimpsest.verify.accuracy import Accuracy


@pytest.mark.slow
def test_by_ten_probes_of_each_ten_of_ten_classes_are_named_of_five_victims(tmp_path: Path) -> None:
    """Approximate, all of a class (p_u = 1.0), 10 probes, digits, as in Table 3 of the inversion paper; of a linear victim, where
    each class has weights of its own, and at a rate whose drops are far above what float32 rounds."""
    record = run(
        tmp_path,
        reported=False,
        data=Digits(public=0.6),
        model=Linear(),
        learner=Finetuned(pretraining_epochs=15),
        recipe=Recipe(epochs=1, batch_size=128, lr=0.01, momentum=0.0, weight_decay=0.0, schedule="constant"),
        forget=tuple(f"class={label}" for label in range(10)),
        separate=True,
        unlearners=(SingleGradient(),),
        attacks=(LabelInference(probes=10),),
        verifiers=(Accuracy(),),
        seeds=(0, 1, 2, 3, 4),
        controls=1,
    )
    found = {
        cell.seed: {m.name: m.value for m in cell.measures if not m.at}
        for cell in record.cells
        if (cell.attack, cell.target) == ("label_inference", "unlearned")
    }
    assert {seed: row["label_inference.accuracy"] for seed, row in found.items()} == dict.fromkeys(range(5), 1.0)
    for row in found.values():
        assert row["label_inference.margin"] > 1e-6
        assert row["label_inference.probe_queries"] <= 100 * 25_801
