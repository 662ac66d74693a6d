"""What a model costs at run time: time, memory and parameters, with and without a defense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forefend.evaluation.inspection import BATCHES, milliseconds
from forefend.models.freezing import frozen
from forefend.runtime.formatting import text_table
from forefend.runtime.profiling import peak_bytes


@dataclass(frozen=True)
class Latency:
    """The cost of one model.

    Args:
        name: of the model.
        milliseconds: median time of one image, by size of the batch.
        parameters: how many numbers they hold.
        weights: megabytes of parameters and buffers.
        memory: megabytes of the largest set of tensors held at a time, for one batch of `BATCHES[-1]`, besides images
            and weights; what one operation needs inside is not counted.
        device: where it was measured.
        threads: the threads of the CPU.
    """

    name: str
    milliseconds: dict[str, float]
    parameters: int
    weights: float
    memory: float
    device: str
    threads: int


def latency(network: nn.Module, x: Tensor, name: str = "model") -> Latency:
    """Measure the cost of a network in evaluation mode; it is left unchanged.

    Args:
        network: a network of images `(B, C, H, W)`.
        x: images, on its device; they are repeated to fill a batch.
        name: its name in tables.
    """
    view = frozen(network)
    batch = x.repeat(BATCHES[-1] // len(x) + 1, 1, 1, 1)[: BATCHES[-1]]
    tensors = [*view.parameters(), *view.buffers()]
    with torch.no_grad():
        memory = peak_bytes(lambda: view(batch))
    return Latency(
        name,
        {str(size): milliseconds(view, x, size) for size in BATCHES},
        sum(parameter.numel() for parameter in view.parameters()),
        round(sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6, 6),
        round(memory / 1e6, 6),
        str(x.device),
        torch.get_num_threads(),
    )


def table(measured: Sequence[Latency]) -> str:
    """Return the costs as a table for the terminal."""
    heading = ["model", *(f"ms an image, batch {size}" for size in BATCHES), "parameters", "weights MB", "memory MB"]
    rows = [
        [
            one.name,
            *(f"{ms:.3g}" for ms in one.milliseconds.values()),
            f"{one.parameters:,}",
            f"{one.weights:.3g}",
            f"{one.memory:.3g}",
        ]
        for one in measured
    ]
    where = f"on {measured[0].device}, {measured[0].threads} threads; memory: tensors held at a time for a batch of "
    return f"{text_table(heading, rows)}\n{where}{BATCHES[-1]}"


def as_json(measured: Sequence[Latency]) -> dict[str, Any]:
    """Return JSON values, with the number of their format."""
    return {"format": 1, "models": [asdict(one) for one in measured]}
