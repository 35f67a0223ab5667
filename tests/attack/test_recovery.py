"""The other attacks on UMA's aim: black-box squares, transfer, and the stronger search; each within its budget and its view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from palimpsest.attack._pace import Pace, checkpoints
from palimpsest.attack.residual.square import Square
from palimpsest.attack.residual.transfer import Transfer, shortfall
from palimpsest.attack.residual.uma import Uma
from palimpsest.attack.residual.uma_strong import UmaStrong
from palimpsest.attack.search import search
from palimpsest.case import Case
from palimpsest.errors import BadInput
from palimpsest.rng import Rng
from palimpsest.threat import View
from palimpsest.types import Examples, ForgetRequest, Split


def descend(rule: str, steps: int = 40, momentum: float = 0.0, **how: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and losses of a search on a quartic of 30 records with a minimum inside the ball that depends on the record."""
    aims = torch.rand(30, 3, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.45

    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    found = search(
        Flat(), torch.full((30, 3), 0.5), aims, lambda answer, wanted: ((answer - wanted) ** 4).sum(1),
        low=torch.zeros(()), high=torch.ones(()), epsilon=0.05, step_size=0.02, steps=steps, rng=Rng(0), step_rule=rule,  # type: ignore[arg-type]
        momentum=momentum, batch_size=7, layout="contiguous", **how,  # type: ignore[arg-type]
    )  # fmt: skip
    return found.inputs, found.loss


def test_the_automatic_rule_finds_minima_that_a_constant_step_jumps_over() -> None:
    """Steps of 0.02 cannot come nearer than about 0.01 to a point; halved steps can, and from a start that is chosen badly too."""
    _, constant = descend("constant")
    inputs, automatic = descend("automatic")
    _, cosine = descend("cosine")
    assert automatic.mean() < 0.05 * constant.mean()
    assert cosine.mean() < 0.2 * constant.mean()
    assert (inputs - 0.5).abs().max() <= 0.05
    assert torch.equal(descend("automatic")[1], automatic)


@pytest.mark.parametrize("rule", ["constant", "cosine", "automatic"])
def test_what_a_record_finds_does_not_depend_on_who_else_is_in_the_batch(rule: str) -> None:
    whole = descend(rule, momentum=0.5)[1]
    others = descend(rule, momentum=0.5, stop=lambda answer, wanted, loss: loss < 1e-9)[1]
    assert (others <= whole.clamp_min(1e-9)).all()


def test_momentum_adds_up_scaled_gradients() -> None:
    """Two steps by hand: v₁ = g₁/mean|g₁|, v₂ = μ·v₁ + g₂/mean|g₂|, each step along its sign."""
    now = torch.tensor([[0.3, 0.6]])
    seen: list[torch.Tensor] = []

    def loss(answer: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        seen.append(answer.detach().clone())
        return (torch.tensor([[8.0, -1.0], [-1.0, 2.0], [0.0, 0.0]])[len(seen) - 1] * answer).sum(1)

    search(
        nn.Identity(), now, torch.zeros(1, 2), loss, low=torch.zeros(()), high=torch.ones(()), epsilon=0.5, step_size=0.1,
        steps=2, rng=Rng(0), start="record", momentum=0.9, layout="contiguous",
    )  # fmt: skip
    first = torch.tensor([[8.0, -1.0]]) / 4.5
    second = 0.9 * first + torch.tensor([[-1.0, 2.0]]) / 1.5
    assert seen[1].flatten().tolist() == pytest.approx((now - 0.1 * first.sign()).flatten().tolist())
    assert seen[2].flatten().tolist() == pytest.approx(
        (now - 0.1 * first.sign() - 0.1 * second.sign()).flatten().tolist()
    )
    with pytest.raises(BadInput, match="momentum"):
        descend("constant", momentum=1.0)


def test_the_rule_looks_back_where_the_paper_says() -> None:
    """For 100 steps: 22, then 19, 16, … fewer, at least 6 apart."""
    spans = checkpoints(100)
    assert len(spans) == 101
    assert np.flatnonzero(spans)[:5].tolist() == [22, 41, 57, 70, 80]
    assert spans[spans > 0][:5].tolist() == [22, 19, 16, 13, 10]
    assert spans[spans > 0].min() >= 6


def test_a_record_that_gains_too_little_goes_back_to_its_best_with_half_the_step() -> None:
    start = torch.zeros(2, 1)
    pace = Pace.begin(start.clone(), torch.full((2, 1), 0.4))
    pace.gains, pace.last = torch.tensor([1, 4]), torch.tensor([5.0, 1.0])
    pace.mark = torch.tensor([9.0, 9.0])
    best = torch.tensor([[0.25], [0.75]])
    ends = torch.full((2, 1), -1.0), torch.full((2, 1), 1.0)
    one, five = torch.ones(()), torch.tensor([5.0, 0.5])
    now = pace.step(
        start, torch.ones(2, 1), five, np.array([5, 5]), np.array([5, 5]), one, best, torch.tensor([5.0, 0.5]), *ends
    )
    assert now.flatten().tolist() == pytest.approx([0.25, -0.3]), "back to the best; on with inertia"
    assert pace.stride.flatten().tolist() == pytest.approx([0.2, 0.4])
    assert pace.halved.tolist() == [True, False]
    assert pace.gains.tolist() == [0, 0]


def test_the_start_is_no_gain() -> None:
    """Of 22 steps at least 16.5 must gain: a loss that falls 16 times halves the step (Algorithm 1, condition 1)."""
    pace = Pace.begin(torch.zeros(1, 1), torch.full((1, 1), 0.2))
    ends = torch.full((1, 1), -9.0), torch.full((1, 1), 9.0)
    losses = [10.0 - step for step in range(17)] + [0.0] * 6
    for age, loss in enumerate(losses):
        span = np.array([22 if age == 22 else 0])
        now = torch.tensor([loss])
        pace.step(
            torch.zeros(1, 1),
            torch.ones(1, 1),
            now,
            np.array([age]),
            span,
            torch.ones(()),
            torch.zeros(1, 1),
            now,
            *ends,
        )
    assert pace.stride.item() == pytest.approx(0.1)


def test_squares_stay_in_the_ball_count_every_query_and_need_answers_only(situation: Case) -> None:
    attack = Square(epsilon=(0.1, 0.3), queries=30, records=20, references=20)
    view = View(attack.threat, situation)
    guess = attack.observe(view, rng=Rng(0))
    assert guess.gradients == 0
    assert guess.queries == view.queries == 20 + 2 * 20 * 31
    scores = attack.score(guess, situation)
    assert scores.axes["epsilon"] == (0.1, 0.3)
    again = attack.observe(View(attack.threat, situation), rng=Rng(0))
    assert torch.equal(guess.tensors["attacked"], again.tensors["attacked"])
    clean = situation.forget.only(guess.info["ids"]).batch().inputs[situation.task.attacked_input]
    moved = (guess.tensors["attacked"][:, 1] - clean).abs()
    assert moved.max() <= 0.3 + 1e-6
    assert moved.max() > 0.29


def test_more_queries_never_do_worse(situation: Case) -> None:
    """Only what lowers the loss is kept."""
    case = situation.of(situation.original, "original")
    few, many = (
        Square(epsilon=(0.3,), queries=queries, records=20, references=20).run(case, rng=Rng(0)) for queries in (1, 150)
    )
    assert many[1]["distance"][many[1]["group"] == 0].mean() < few[1]["distance"][few[1]["group"] == 0].mean()


def test_transfer_never_touches_the_unlearned_model(situation: Case) -> None:
    attack = Transfer(epsilon=(0.2,), steps=10, step_size=0.05, records=20, references=20)
    view = View(attack.threat, situation)
    assert set(view._models) == {"before"}
    one = attack.observe(view, rng=Rng(0)).tensors["attacked"]
    other = attack.observe(View(attack.threat, situation.of(situation.original, "original")), rng=Rng(0)).tensors[
        "attacked"
    ]
    assert torch.equal(one, other)
    logits = torch.tensor([[2.0, 5.0, 1.0], [0.0, -1.0, 4.0]])
    assert shortfall(logits, torch.tensor([1, 0])).tolist() == [-3.0, 4.0]


def test_the_stronger_attack_leaves_no_larger_distance_than_the_plain_one(situation: Case) -> None:
    how = {"epsilon": (0.1,), "steps": 12, "records": 30, "references": 20, "layout": "contiguous", "stop": "never"}
    plain, strong = Uma(**how), UmaStrong(**how)  # type: ignore[arg-type]
    assert (strong.restarts, strong.step_rule, strong.primary) == (5, "automatic", "uma_strong.forget_accuracy")
    one, two = (attack.run(situation, rng=Rng(0))[1] for attack in (plain, strong))
    forgotten = one["group"] == 0
    assert two["distance"][forgotten].mean() <= one["distance"][forgotten].mean()
    names = {measure.name for measure in strong.measure(two)}
    assert names == {f"uma_strong.{name}" for name in ("forget_accuracy", "mia_member_rate", "minimum_distance")}


@pytest.fixture(scope="module")
def situation(digits: Split) -> Case:
    """A small network, and one trained without class 0."""
    from palimpsest.learn.plain import Plain
    from palimpsest.learn.recipe import Recipe
    from palimpsest.models.convnet import ConvNet
    from palimpsest.task import Classification

    torch.set_num_threads(1)
    task = Classification.of(digits)
    train = digits.train.take(np.arange(500))
    gone = train.ids[(train.targets == 0).numpy()]
    split = replace(digits, train=train)

    def fit(part: Examples, seed: int):  # type: ignore[no-untyped-def]
        return Plain().fit(task, part, Recipe(epochs=5, batch_size=64), ConvNet(width=4), rng=Rng(seed))

    request = ForgetRequest(np.sort(gone), "class=0")
    return Case(split, (request,), fit(train, 0), fit(train.without(gone.tolist()), 1))
