"""The plain loop and `fit` are the same training, loss by loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import plain_loop
from benchmarks.speed import plain
from benchmarks.speed.benchmarks import training_step
from benchmarks.speed.results import Point
from forefend.checks import InputError

CLOSE = 1e-3  # of the largest loss, after twenty steps in float32 and in two memory formats
CASE = training_step.CASES[training_step.PARITY]


def losses(**changes: Any) -> list[float]:
    """Return the losses of the plain loop, with some settings changed."""
    settings = replace(plain.settings_of(CASE), **changes)
    return list(plain_loop.train(CASE.preprocessor(), CASE.classifier(), plain.batches_of(CASE), settings))


@pytest.fixture(scope="module")
def right() -> list[float]:
    """The losses of the plain loop in the benchmark."""
    return losses()


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    """The outcome of `fit` in fp32."""
    return dict(training_step.IMPLEMENTATIONS[training_step.FP32](training_step.PARITY)())


def difference(a: list[float], b: list[float]) -> float:
    first, second = (Point(training_step.NAME, training_step.PARITY, name) for name in ("a", "b"))
    return training_step.difference({first: [{"losses": a}], second: [{"losses": b}]}, first, second)


def test_fit_twenty_steps_have_the_losses_of_the_plain_loop(ours: dict[str, Any], right: list[float]) -> None:
    assert len(right) == 20
    assert max(right) > 1.2 * min(right)  # the loss falls
    assert difference(ours["losses"], right) < CLOSE
    assert ours["seconds"] > 0


def test_fit_batches_are_those_of_the_plain_loop(ours: dict[str, Any]) -> None:
    x, _, _ = CASE.images().batch(torch.arange(len(CASE.images())))
    for rows, (x_theirs, _, noise) in zip(ours["batches"], plain.batches_of(CASE), strict=True):
        assert torch.equal(x[rows], x_theirs)
        assert float(noise.abs().max()) <= 1


CHANGES = [{"steps": 2}, {"step_size": 0.001}, {"momentum": 0.0}, {"milestones": [2]}, {"lr": 0.09}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_difference_of_another_training_exceeds_the_gate(change: dict[str, Any], right: list[float]) -> None:
    assert difference(right, losses(**change)) > CLOSE


def test_difference_is_relative_to_the_largest_loss() -> None:
    assert difference([4.0, 2.0], [4.0, 1.0]) == 0.25


def test_figures_contain_the_gate() -> None:
    def outcome(seconds: float, *losses: float) -> list[dict[str, object]]:
        return [{"seconds": seconds, "losses": list(losses)}]

    step = {
        name: Point(training_step.NAME, training_step.STEP, name)
        for name in (training_step.OURS, training_step.FP32, training_step.PLAIN)
    }
    gate = {
        name: Point(training_step.NAME, training_step.PARITY, name)
        for name in (training_step.FP32, training_step.PLAIN)
    }
    measured = {
        step[training_step.OURS]: outcome(1, 1.0),
        step[training_step.FP32]: outcome(2, 1.0),
        step[training_step.PLAIN]: outcome(4, 1.0),
        gate[training_step.FP32]: outcome(1, 2.0, 1.0),
        gate[training_step.PLAIN]: outcome(1, 2.0, 1.5),
    }
    fast, slow = training_step.figures(measured)
    assert (fast.ratio, fast.target, slow.ratio, slow.target) == (4, 3.5, 2, None)
    assert fast.parity == {"gate": 0.25, "loss_difference": 0.0}


def test_recorded_rtfe_checks_and_settings_are_those_of_rtfe() -> None:
    with pytest.raises(InputError):
        training_step.RecordedRTFE(steps=0).check()
    assert "recorded" not in training_step.RecordedRTFE().settings()
