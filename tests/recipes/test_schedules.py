from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forefend.recipes import MMA
from forefend.recipes.base import sgd
from forefend.recipes.schedules import constant, cosine, one_cycle, step_decay, stepwise


def rates_of(make: object, steps: int) -> list[float]:
    """What a scheduler of torch's does to a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("warm_up", [0.1, 0.2, 0.5])
def test_one_cycle_matches_torch(warm_up: float) -> None:
    total = 1000

    def theirs(optimizer: torch.optim.Optimizer) -> object:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=total + 1,
            pct_start=warm_up,
            cycle_momentum=False,
            div_factor=25,
            final_div_factor=math.inf,
        )

    expected, schedule = rates_of(theirs, total), one_cycle(warm_up)
    # torch's rise ends one step short of the share, as its last step is one short of the total.
    peak = warm_up * (total + 1) - 1
    for step, rate in enumerate(expected):
        share = step / peak * warm_up if step < peak else warm_up + (1 - warm_up) * (step - peak) / (total - peak)
        assert schedule(share) == pytest.approx(rate, abs=1e-9), step
        assert schedule(step / total) == pytest.approx(rate, abs=0.02), step


def test_one_cycle_has_known_ends_and_peak() -> None:
    schedule = one_cycle(0.2)
    assert schedule(0.0) == pytest.approx(1 / 25)
    assert schedule(0.1) == pytest.approx((1 + 1 / 25) / 2)
    assert schedule(0.2) == pytest.approx(1.0)
    assert schedule(0.6) == pytest.approx(0.5)
    assert schedule(1 - 1e-6) == pytest.approx(0.0, abs=1e-9)
    assert one_cycle(0.0)(0.0) == 1.0


@given(warm_up=st.floats(0.01, 0.99), progress=st.floats(0, 1, exclude_max=True))
def test_one_cycle_stays_in_range(warm_up: float, progress: float) -> None:
    assert 0 <= one_cycle(warm_up)(progress) <= 1


def test_stepwise_changes_at_its_milestones() -> None:
    schedule = stepwise((0.4, 0.6, 0.8), (0.3, 0.1, 0.03))
    expected = {0.0: 1.0, 0.39: 1.0, 0.4: 0.3, 0.59: 0.3, 0.6: 0.1, 0.79: 0.1, 0.8: 0.03, 0.99: 0.03}
    assert {progress: schedule(progress) for progress in expected} == expected
    assert stepwise((), ())(0.5) == 1.0


@given(milestones=st.lists(st.floats(0, 1), max_size=4).map(sorted), progress=st.floats(0, 1))
def test_stepwise_with_powers_is_step_decay(milestones: list[float], progress: float) -> None:
    powers = [0.5 ** (place + 1) for place in range(len(milestones))]
    assert stepwise(milestones, powers)(progress) == step_decay(milestones, 0.5)(progress)


def test_cosine_falls_and_constant_stays() -> None:
    assert all(a > b for a, b in pairwise(cosine(step / 10) for step in range(11)))
    assert {constant(step / 10) for step in range(10)} == {1.0}


def test_sgd_uses_the_settings_of_the_recipe() -> None:
    weights = [torch.nn.Parameter(torch.ones(2))]
    (group,) = sgd(weights, MMA(lr=0.7, momentum=0.6, weight_decay=0.5)).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.7, 0.6, 0.5)
    assert group["params"] == weights
    assert not group["nesterov"]
