"""The parity gate: the plain loop in benchmarks/ and `fit` are the same training, loss by loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed.benchmarks import training_step
from benchmarks.speed.results import Point
from forefend.checks import InputError

ROOT = Path(__file__).parents[2]

from benchmarks import plain_loop
from benchmarks.speed import plain

CLOSE = 1e-3  # of the largest loss, after twenty steps in float32, in two layouts of memory
SCENE = training_step.SCENES[training_step.PARITY]


def losses(**changes: Any) -> list[float]:
    """The plain loop's, with other settings where some are given."""
    settings = replace(plain.settings_of(SCENE), **changes)
    return list(plain_loop.train(SCENE.preprocessor(), SCENE.classifier(), plain.batches_of(SCENE), settings))


@pytest.fixture(scope="module")
def right() -> list[float]:
    """The plain loop's, as the bench runs it."""
    return losses()


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    """What `fit` did in fp32."""
    return dict(training_step.SUBJECTS[training_step.FP32](training_step.PARITY)())


def difference(a: list[float], b: list[float]) -> float:
    first, second = (Point(training_step.NAME, training_step.PARITY, name) for name in ("a", "b"))
    return training_step.difference({first: [{"losses": a}], second: [{"losses": b}]}, first, second)


def test_twenty_steps_have_the_same_losses(ours: dict[str, Any], right: list[float]) -> None:
    assert len(right) == 20
    assert max(right) > 1.2 * min(right)  # something was learnt
    assert difference(ours["losses"], right) < CLOSE
    assert ours["seconds"] > 0


def test_the_batches_are_the_very_same(ours: dict[str, Any]) -> None:
    x, _, _ = SCENE.images().batch(torch.arange(len(SCENE.images())))
    for rows, (x_theirs, _, noise) in zip(ours["batches"], plain.batches_of(SCENE), strict=True):
        assert torch.equal(x[rows], x_theirs)
        assert float(noise.abs().max()) <= 1


CHANGES = [{"steps": 2}, {"step_size": 0.001}, {"momentum": 0.0}, {"milestones": [2]}, {"lr": 0.09}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_another_training_does_not_pass_the_gate(change: dict[str, Any], right: list[float]) -> None:
    assert difference(right, losses(**change)) > CLOSE


def test_a_difference_is_in_parts_of_the_largest_loss() -> None:
    assert difference([4.0, 2.0], [4.0, 1.0]) == 0.25


def test_the_figures_carry_the_gate() -> None:
    def outcome(seconds: float, *kept: float) -> list[dict[str, object]]:
        return [{"seconds": seconds, "losses": list(kept)}]

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
    assert (fast.ratio, fast.bar, slow.ratio, slow.bar) == (4, 3.5, 2, None)
    assert fast.parity == {"gate": 0.25, "loss_difference": 0.0}


def test_a_watched_recipe_checks_as_rtfe_does() -> None:
    with pytest.raises(InputError):
        training_step.Watched(steps=0).check()
    assert "kept" not in training_step.Watched().settings()
