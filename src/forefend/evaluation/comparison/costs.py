"""Measure what the models of a comparison cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from forefend.data import ImageDataset
from forefend.evaluation.comparison.baselines import ComparedModel
from forefend.evaluation.comparison.comparison import Price
from forefend.models.freezing import device_of, frozen
from forefend.runtime.profiling import count_compute, median_seconds

ROUNDS = 21  # measurements of each latency, of which the median is reported


def prices(models: Sequence[ComparedModel], images: ImageDataset) -> list[Price]:
    """Return the costs of each model; the latencies of all models are measured in turns.

    Args:
        models: the models; the first one adds nothing to the classifier.
        images: images for the forward passes.
    """
    networks = [frozen(model.network) for model in models]
    x, _, _ = images.batch(torch.arange(64) % len(images))
    x = x.to(device_of(networks[-1]))
    alone = median_seconds([partial(_forward, network, x[:1]) for network in networks], ROUNDS)
    batched = median_seconds([partial(_forward, network, x) for network in networks], ROUNDS)
    parameters, size = _size(networks[0])
    found = []
    for model, network, seconds, seconds_64 in zip(models, networks, alone, batched, strict=True):
        flops, own = count_compute(partial(_forward, network, x[:1])).flops, _size(network)
        times = (1000 * seconds, 1000 * seconds_64 / 64)
        found.append(Price(model.training_flops, flops, *times, own[0] - parameters, own[1] - size))
    return found


def _forward(network: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        network(x)


def _size(network: nn.Module) -> tuple[int, float]:
    """Return the number of parameters, and the KiB of parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(p.numel() for p in network.parameters()), sum(t.numel() * t.element_size() for t in tensors) / 1024
