"""UMA on digits: it finds what is there, does not find what is not, and keeps to its budget and its view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from palimpsest.attack.base import Guess
from palimpsest.attack.residual.base import LOSSES, verify_budget
from palimpsest.attack.residual.uma import Uma
from palimpsest.case import Case
from palimpsest.catalog import make
from palimpsest.errors import BadInput, ContractError
from palimpsest.learn.base import Trained
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.convnet import ConvNet
from palimpsest.rng import Rng
from palimpsest.types import ForgetRequest

QUICK = Uma(epsilon=(8 / 255, 16 / 255), steps=15, step_rule="decaying", records=30, references=60)


@pytest.fixture(scope="module")
def cases(digits, digits_task) -> dict[str, Case]:
    """Class 0 forgotten: the original and a retrained model in the subject's seat."""
    ids = digits.train.ids[digits.train.targets.numpy() == 0]
    request = ForgetRequest(ids, "class=0")

    def fit(records, seed: int) -> Trained:
        return Plain().fit(digits_task, records, Recipe(epochs=5), ConvNet(4), rng=Rng(seed))

    original = fit(digits.train, 0)
    retrained = fit(digits.train.without(ids.tolist()), 1)
    case = Case(digits, (request,), original, original, "original")
    return {"original": case, "retrained": case.of(retrained, "retrained")}


def value(measures, name: str, epsilon: float) -> float:
    (found,) = [m for m in measures if m.name == name and m.at["epsilon"] == epsilon]
    assert found.low <= found.value <= found.high
    return found.value


def test_controls(cases):
    """The original gives everything back; a model that never saw the class gives nothing at this radius."""
    read = {}
    for name, case in cases.items():
        _, scores = QUICK.run(case, rng=Rng(0))
        read[name] = QUICK.measure(scores)
    for epsilon in (0.0, *QUICK.epsilon):
        assert value(read["original"], "uma.forget_accuracy", epsilon) > 0.9
        assert value(read["original"], "uma.mia_member_rate", epsilon) > 0.8
        assert value(read["retrained"], "uma.forget_accuracy", epsilon) < 0.1
    for epsilon in QUICK.epsilon:
        assert value(read["original"], "uma.minimum_distance", epsilon) < 0.02
        assert value(read["retrained"], "uma.minimum_distance", epsilon) > 0.8


def test_scores_of_records_and_references(cases):
    guess, scores = QUICK.run(cases["retrained"], rng=Rng(0))
    group = scores["group"]
    assert np.bincount(group).tolist() == [30, 60, 60]
    assert scores.axes == {"epsilon": QUICK.epsilon}
    forget = cases["retrained"].forget
    assert set(scores.ids[group == 0]) <= set(forget.ids)
    assert len(set(scores.ids.tolist())) == 150
    assert (scores["label"][group == 0] == 0).all()
    assert not (scores["label"][group > 0] == 0).any()
    for name in ("attacked_prediction", "attacked_confidence", "distance"):
        clean = {"distance": "clean_distance"}.get(name, name.replace("attacked", "clean"))
        assert scores[name].shape == (150, 2)
        assert (scores[name][group > 0] == scores[clean][group > 0, None]).all()
    assert (scores["distance"][group == 0] < scores["clean_distance"][group == 0, None]).any()
    assert guess.gradients == sum(guess.info["steps"]) > 0
    assert guess.queries == 30, "the original's answers"


def test_the_same_stream_gives_the_same_scores(cases):
    one, same = (QUICK.run(cases["retrained"], rng=Rng(3))[1] for _ in range(2))
    other = QUICK.run(cases["retrained"], rng=Rng(4))[1]
    assert one.ids.tolist() == same.ids.tolist()
    assert all((one[name] == same[name]).all() for name in one.arrays)
    assert any((one[name] != other[name]).any() for name in one.arrays)


def test_the_minimum_distance_falls_with_the_radius_and_with_more_radii(cases):
    _, scores = QUICK.run(cases["retrained"], rng=Rng(0))
    measures = QUICK.measure(scores)
    near, far = (value(measures, "uma.minimum_distance", e) for e in QUICK.epsilon)
    forgotten = scores["group"] == 0
    best = np.minimum(scores["clean_distance"][forgotten], scores["distance"][forgotten, 0])
    assert near == pytest.approx(best.mean())
    assert far <= near


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_every_loss_leads_the_same_way(cases, loss):
    attack = replace(QUICK, loss=loss, epsilon=(32 / 255,), steps=8)
    _, scores = attack.run(cases["retrained"], rng=Rng(0))
    forgotten = scores["group"] == 0
    assert scores["distance"][forgotten].mean() < scores["clean_distance"][forgotten].mean()


@pytest.mark.parametrize("loss", ["kl", "mse", "bce"])
def test_the_descent_is_algorithm_1(cases, loss):
    """Eq. 5 by hand: steps against the sign of the loss's gradient, cut to the ball and to [0, 1], the best iterate kept."""
    case, epsilon, step = cases["retrained"], 16 / 255, 3 / 255
    attack = replace(QUICK, loss=loss, epsilon=(epsilon,), steps=5, step_size=step, start="record", stop="never")
    guess = replace(attack, step_rule="constant", layout="contiguous").observe(_view(case), rng=Rng(0))
    clean = _inputs(case, guess)
    with torch.no_grad():
        p = case.original.model(clean).softmax(1)

    def distance(x):
        log_q = case.subject.model(x).log_softmax(1)
        if loss == "kl":
            return (p * (p.log() - log_q)).sum(1)
        q = log_q.exp()
        return (p - q).square().sum(1) if loss == "mse" else -(p * q.log() + (1 - p) * (1 - q).log()).sum(1)

    x, best, least = clean.clone(), clean.clone(), torch.full((len(clean),), torch.inf)
    for turn in range(6):
        point = x.clone().requires_grad_()
        values = distance(point)
        better = values.detach() < least
        best[better], least[better] = x[better], values.detach()[better]
        if turn < 5:
            (slope,) = torch.autograd.grad(values.sum(), point)
            x = (x - step * slope.sign()).clamp(clean - epsilon, clean + epsilon).clamp(0, 1)
    found = guess.tensors["attacked"][:, 0]
    off = (found - best).abs() > 1e-5  # the sign of a gradient near 0 may turn by rounding
    assert float(off.float().mean()) < 0.02
    assert float((best - clean).abs().mean()) > step


def test_losses_against_their_definitions_and_nothing_at_equal_posteriors():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)
    wanted = torch.softmax(torch.tensor([[0.3, 0.1, -1.0], [2.0, 0.0, 0.0]], dtype=torch.float64), 1)
    q, p = torch.softmax(logits, 1), wanted
    cross = -(p * q.log() + (1 - p) * (1 - q).log()).sum(1)
    least = -(p * p.log() + (1 - p) * (1 - p).log()).sum(1)
    expected = {"kl": (p * (p / q).log()).sum(1), "mse": (p - q).square().sum(1), "bce": cross - least}
    for name, loss in LOSSES.items():
        assert torch.allclose(loss(logits, wanted), expected[name])
        assert torch.allclose(loss(logits, q), torch.zeros(2, dtype=torch.float64), atol=1e-12)


def test_every_setting_is_heeded(cases):
    """Each field but those of speed changes the scores, or what was spent on them."""
    start = replace(QUICK, steps=4, stop="never")

    def outcome(attack: Uma) -> tuple:
        guess, scores = attack.run(cases["retrained"], rng=Rng(0))
        return guess.gradients, scores.ids.tolist(), [values.tolist() for values in scores.arrays.values()]

    plain = outcome(start)
    changes = {"loss": "mse", "epsilon": (0.2, 0.3), "steps": 5, "step_size": 0.05, "restarts": 2, "start": "record"}
    changes |= {"step_rule": "constant", "records": 20, "references": 50}
    for name, changed in changes.items():
        assert outcome(replace(start, **{name: changed})) != plain, name
    assert outcome(start) == plain


@pytest.mark.parametrize(("stop", "at_most"), [("recovered", 60), ("converged", 600)])
def test_records_that_are_back_leave(cases, stop, at_most):
    guess, _ = replace(QUICK, stop=stop, steps=40, step_rule="constant").run(cases["original"], rng=Rng(0))
    assert guess.gradients <= at_most < 30 * 2 * 40
    loose = replace(QUICK, stop=stop, tolerance=1.0).run(cases["original"], rng=Rng(0))[0]
    assert loose.gradients <= 60


def test_an_input_beyond_its_budget_or_the_domain_is_refused(cases):
    case = cases["original"]
    guess = QUICK.observe(_view(case), rng=Rng(0))
    inside = guess.tensors["attacked"]
    verify_budget("uma", _inputs(case, guess), inside, QUICK.epsilon, case.task.domain)
    brought = {"too far": inside.clone(), "outside": inside.clone()}
    brought["too far"][3, 0, 0, 4, 4] = (_inputs(case, guess)[3, 0, 4, 4] + 0.0315).clamp(max=1.0)
    brought["too far"][3, 0, 0, 0, 0] = 0.0314
    brought["outside"][3, 1, 0, 0, 0] = -1e-7
    for wrong in brought.values():
        with pytest.raises(ContractError, match="uma"):
            QUICK.score(Guess({"attacked": wrong}, guess.info), case)
    alien = {**guess.info, "ids": [*guess.info["ids"][:-1], "nobody"]}
    with pytest.raises(ContractError, match="ids"):
        QUICK.score(Guess({"attacked": inside}, alien), case)


def test_nothing_beyond_the_declared_view_is_read(cases):
    """The adversary's part runs on a view that holds two models and the forget set, and on nothing else."""
    view = _view(cases["original"])
    assert set(view._known) == {"forget_set"}
    assert set(view._models) == {"before", "after"}
    assert not hasattr(view, "case")
    QUICK.observe(view, rng=Rng(0))


@pytest.mark.parametrize(
    ("field", "got"),
    [
        ("epsilon", "0"),
        ("epsilon", ""),
        ("steps", "0"),
        ("step_size", "-1"),
        ("loss", "l1"),
        ("records", "0"),
        ("layout", "x"),
    ],
)
def test_settings_out_of_range_are_named(field, got):
    with pytest.raises(BadInput, match=f"uma.{field}"):
        make("attacks", "uma", {field: got})


def test_settings_from_text():
    attack = make("attacks", "uma", {"epsilon": "8/255,0.5", "records": "none", "stop": "never"})
    assert attack.epsilon == (8 / 255, 0.5)
    assert attack.records is None


def _view(case: Case):
    from palimpsest.threat import View

    return View(Uma.threat, case)


def _inputs(case: Case, guess: Guess) -> torch.Tensor:
    return case.forget.only(guess.info["ids"]).batch().inputs[case.task.attacked_input]
