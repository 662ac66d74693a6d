"""The benchmark of memory: bytes counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.speed.benchmarks import memory
from benchmarks.speed.results import Point


def test_saved_counts_each_storage_once_and_no_weights() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    x, y = torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.int64)
    one = memory.saved(network, x, y)
    # By hand, in numbers of 4 bytes an image: the convolution's input, 16; the ReLU's output, which the linear layer
    # saves too, 32; cross-entropy's log-probabilities, 3, and its label, of 8 bytes.
    by_hand = 5 * (4 * (16 + 32 + 3) + 8)
    assert by_hand <= one <= by_hand + 8  # cross-entropy may save one number for the whole batch
    assert memory.saved(network, torch.cat([x, x]), torch.cat([y, y])) - one == by_hand


def test_optimized_copy_saves_less_and_bf16_half_of_it(small_model: None) -> None:
    plain, fp32, bf16 = (
        memory.IMPLEMENTATIONS[name]("random weights")()["bytes"] for name in (memory.PLAIN, memory.FP32, memory.BF16)
    )
    assert fp32 < 0.65 * plain
    assert 0.45 * fp32 < bf16 < 0.6 * fp32


def test_figures_target_is_a_third() -> None:
    kept = {memory.BF16: 30, memory.FP32: 60, memory.PLAIN: 100}
    found = list(
        memory.figures(
            {Point(memory.NAME, "c", name): [{"seconds": 0.0, "bytes": size}] for name, size in kept.items()}
        )
    )
    assert [(f.implementation, round(f.ratio, 3), f.target) for f in found] == [
        ("ours", 3.333, 3),
        ("ours, fp32", 1.667, None),
    ]
