"""The benchmark of the rate of a gradient: its convolutions, and ratios of rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.speed.benchmarks import roofline
from benchmarks.speed.results import Point
from forefend import losses
from forefend.attacks.base import input_gradient
from forefend.runtime.profiling import count_compute


def test_convolutions_have_the_shapes_of_their_inputs() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    calls = roofline.convolutions(network.requires_grad_(False), torch.rand(2, 3, 8, 8))
    assert [call.shape for call in calls] == [(2, 3, 8, 8), (2, 4, 4, 4)]
    # Forwards and back to the input: twice two operations for each weight and output pixel.
    by_hand = 4 * 2 * 4 * 4 * (4 * 3 * 9 + 5 * 4)
    assert count_compute(lambda: [call() for call in calls]).flops == by_hand
    assert not any(layer._forward_pre_hooks for layer in network)


def test_figures_are_ratios_of_rates() -> None:
    rates = {roofline.WHOLE: 60.0, roofline.ALONE: 75.0, roofline.BEST: 100.0}
    measured = {
        Point(roofline.NAME, "c", name): [{"seconds": 1.0, "per_gflop": 1 / rate, "gflops_per_second": rate}]
        for name, rate in rates.items()
    }
    alone, best = roofline.figures(measured)
    assert alone.ratio == pytest.approx(0.8)
    assert not alone.missed
    assert best.ratio == pytest.approx(0.6)
    assert best.target is None


def test_gradient_is_mostly_convolutions(small_model: None) -> None:
    f, x, y = roofline._set_up("random weights in fp32")
    calls = roofline.convolutions(f, x)
    convolutions = count_compute(lambda: [call() for call in calls]).flops
    gradient = count_compute(lambda: input_gradient(f, x, y, losses.ce)).flops
    assert convolutions == pytest.approx(gradient, rel=0.02)  # the rest is the last linear layer
