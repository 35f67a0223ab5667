"""Every method has a test that holds its update against an independent computation in float64."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from palimpsest.catalog import members

TESTS = Path(__file__).parent.parent
FIRST, RECORDED, STUDENTS, ENCODERS = (
    f"unlearn/test_first_updates{ending}.py" for ending in ("", "_of_recorded", "_of_students", "_of_encoders")
)
REFERENCES = {
    "amnesiac": (RECORDED, "test_amnesiac"),
    "boundary_shrink": (FIRST, "test_boundary_shrink"),
    "catastrophic_forgetting_k": (STUDENTS, "test_catastrophic_forgetting_k"),
    "certified_removal": ("unlearn/test_certified_removal.py", "test_the_first_update"),
    "deltagrad": (RECORDED, "test_deltagrad"),
    "descent_to_delete": ("unlearn/test_descent_to_delete.py", "test_the_first_update"),
    "exact_unlearning_k": (STUDENTS, "test_exact_unlearning_k"),
    "features_and_labels": ("unlearn/test_features_and_labels.py", "test_second_order"),
    "finetune": (FIRST, "test_finetune"),
    "fisher": (STUDENTS, "test_fisher"),
    "gradient_ascent": (FIRST, "test_gradient_ascent"),
    "image_to_image": (ENCODERS, "test_image_to_image"),
    "influence": (FIRST, "test_influence"),
    "l1_sparse": (FIRST, "test_l1_sparse"),
    "negative_gradient": (STUDENTS, "test_negative_gradient_goes_through_the_forget_set_again_and_again"),
    "noisy_gradient_descent": (STUDENTS, "test_noisy_gradient_descent"),
    "random_label": (FIRST, "test_random_label"),
    "retrain": (FIRST, "test_retrain_starts_from_fresh_weights_and_steps_on_the_retain_set"),
    "salun": (FIRST, "test_salun"),
    "scrub": (STUDENTS, "test_scrub"),
    "scrub_rewind": (STUDENTS, "test_scrub_rewind"),
    "single_gradient": (FIRST, "test_single_gradient"),
    "sisa": ("learn/test_sharded.py", "test_the_first_update_is_one_step_by_hand_in_float64"),
    "ssd": (STUDENTS, "test_ssd"),
}
"""Method → file and test."""


def test_every_method_has_one() -> None:
    assert REFERENCES.keys() == members("unlearners").keys()


@pytest.mark.parametrize("name", REFERENCES)
def test_it_is_there_and_is_of_the_method(name: str) -> None:
    file, test = REFERENCES[name]
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == test]
    called = {
        node.func.id for node in ast.walk(found) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert members("unlearners")[name].__name__ in called
