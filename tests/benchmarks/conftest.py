"""A model so small that its optimized copy takes no time."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from benchmarks.speed.cases import MODELS, BenchmarkModel


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the model of random weights by a small one."""
    monkeypatch.setitem(MODELS, "random weights", BenchmarkModel("8/255", partial(small_network, 3), count=4))


def small_network(seed: int) -> nn.Module:
    """Return a network for images of 32 x 32 pixels, with BatchNorms to fold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [layer for width in (3, 8, 8) for layer in (nn.Conv2d(width, 8, 3, padding=1), nn.BatchNorm2d(8))]
        body = [part for layer in zip(layers[::2], layers[1::2], strict=True) for part in (*layer, nn.ReLU())]
        return nn.Sequential(*body, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(8 * 8 * 8, 10)).eval()
