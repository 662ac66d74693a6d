"""Cost: what a suite will take, said before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from forefend.attacks.pgd import input_gradient
from forefend.data import ImageDataset
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.model_checks import has_gradient
from forefend.evaluation.trial import Suite
from forefend.losses import ce
from forefend.models.freezing import device_of, frozen
from forefend.runtime.batch_size import AdaptiveBatchSize

LONG = 5.0  # seconds after which a batch is not tried twice


@dataclass(frozen=True)
class Cost:
    """What a suite takes at most.

    Args:
        gradients: of an image.
        forwards: forward passes of an image beyond those of its gradients.
        seconds: for all images, on one process, as measured on one batch.
    """

    gradients: int
    forwards: int
    seconds: float

    def among(self, count: int) -> Cost:
        """What it takes where this many processes share the images."""
        return replace(self, seconds=self.seconds / count)

    def __str__(self) -> str:
        return (
            f"At most {self.gradients} gradients and {self.forwards} further forward passes an image, "
            f"{spelled(self.seconds)} for all of them as measured on one batch; images that are lost early cost less."
        )


def cost_of(models: Sequence[EvaluatedModel], images: ImageDataset, suite: Suite, batch_size: int) -> Cost:
    """Gradients and forward passes an image at most, and the time that they take as measured on a batch.

    Args:
        models: what will be attacked; each is timed on its own.
        images: how many, and which are timed.
        suite: what will be run.
        batch_size: images attacked at once.
    """
    gradients, forwards = (sum(count) for count in zip(*((t.gradients(), t.forwards()) for t in suite), strict=True))
    seconds = 0.0
    for model in models:
        gradient, forward = _timed(model, images, min(batch_size, len(images)))
        seconds += len(images) * (gradients * gradient + forwards * forward)
    return Cost(gradients, forwards, seconds)


def _timed(model: EvaluatedModel, images: ImageDataset, count: int) -> tuple[float, float]:
    """Seconds of one image's gradient and of its forward pass, on the largest batch that memory holds."""
    network, room = frozen(model.network), AdaptiveBatchSize(count)
    flows = has_gradient(network, _batch(network, images, 1)[0])  # where none does, the suite will be refused

    def tried(rows: Tensor) -> list[float]:
        x, y = _batch(network, images, len(rows))
        works: list[Callable[[], Tensor]] = [partial(input_gradient, network, x, y, ce), partial(network, x)]
        return [_second_of_two(work, x.device) / len(rows) for work in (works if flows else works[1:] * 2)]

    gradient, forward = next(room.map(torch.arange(count), tried))
    return gradient, forward


def _batch(network: nn.Module, images: ImageDataset, count: int) -> tuple[Tensor, Tensor]:
    x, y, _ = (t.to(device_of(network)) for t in images.batch(torch.arange(count)))
    return x, y


def _second_of_two(work: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds that the second of two tries takes, or the first if it is long."""
    taken = 0.0
    for _ in range(2):
        began = time.perf_counter()
        with torch.no_grad():
            work()
        _finished(device)
        taken = time.perf_counter() - began
        if taken > LONG:
            break
    return taken


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spelled(seconds: float) -> str:
    """A duration as one reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
