from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from forefend.data import ImageDataset
from forefend.evaluation.comparison.baselines import Contestant
from forefend.evaluation.comparison.results import Price, Row
from forefend.evaluation.results import Result
from forefend.evaluation.trial import Suite
from forefend.models.fingerprint import fingerprint
from forefend.models.freezing import device_of, frozen
from forefend.runtime.profiling import count_compute, median_seconds

ROUNDS = 21  # of each latency's median


def rows_of(
    contestants: Sequence[Contestant], cells: Sequence[tuple[Result, Result]], images: ImageDataset, suite: Suite
) -> list[Row]:
    """The cells, and beside them what each contestant costs, measured in turns."""
    x, _, _ = images.batch(torch.arange(64) % len(images))
    x = x.to(device_of(contestants[-1].network))
    networks = [frozen(contestant.network) for contestant in contestants]
    alone = [1000 * seconds for seconds in median_seconds([partial(_answer, n, x[:1]) for n in networks], ROUNDS)]
    batched = [1000 * seconds / 64 for seconds in median_seconds([partial(_answer, n, x) for n in networks], ROUNDS)]
    first = contestants[0].classifier
    rows = []
    for i, (contestant, network) in enumerate(zip(contestants, networks, strict=True)):
        forward = count_compute(partial(_answer, network, x[:1])).flops
        more, kilobytes = (a - b for a, b in zip(_size(network), _size(first), strict=True))
        price = Price(contestant.training_flops, forward, alone[i], batched[i], int(more), kilobytes)
        changed = fingerprint(contestant.classifier) != fingerprint(first)
        rows.append(Row(contestant.name, contestant.attacked(suite)[1], *cells[i], price, changed))
    return rows


def _answer(network: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        network(x)


def _size(network: nn.Module) -> tuple[int, float]:
    """Parameters, and KiB of parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(p.numel() for p in network.parameters()), sum(t.numel() * t.element_size() for t in tensors) / 1024
