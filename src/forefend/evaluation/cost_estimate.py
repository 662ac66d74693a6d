"""The cost of a suite, estimated before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from forefend.attacks.base import input_gradient
from forefend.attacks.decision_based import DecisionBased
from forefend.data import ImageDataset
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.model_checks import has_gradient
from forefend.evaluation.trial import Suite
from forefend.losses import ce
from forefend.models.freezing import device_of, frozen
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.formatting import duration

LONG = 5.0  # seconds after which a batch is not timed twice


@dataclass(frozen=True)
class Cost:
    """The cost of a suite at most.

    Args:
        gradients: for an image.
        forwards: forward passes for an image beyond those of its gradients.
        seconds: for all images in one process, as measured on one batch.
        untimed: names of trials that ask small batches, for which `seconds` is too low.
    """

    gradients: int
    forwards: int
    seconds: float
    untimed: tuple[str, ...] = ()

    def among(self, count: int) -> Cost:
        """Return the cost where `count` processes share the images."""
        return replace(self, seconds=self.seconds / count)

    def __str__(self) -> str:
        time = f"{duration(self.seconds)} for all, as measured on one batch"
        if self.untimed:
            time = f"time not estimated because of the small batches of {' and '.join(self.untimed)}"
        return (
            f"At most {self.gradients} gradients and {self.forwards} further forward passes for each image, {time}; "
            "images misclassified early cost less."
        )


def cost_of(models: Sequence[EvaluatedModel], images: ImageDataset, suite: Suite, batch_size: int) -> Cost:
    """Estimate the cost of a suite at most, timing one batch of each model.

    Args:
        models: the models that are attacked.
        images: test images; the first are timed.
        suite: the trials.
        batch_size: images attacked at once.
    """
    gradients, forwards = (sum(count) for count in zip(*((t.gradients(), t.forwards()) for t in suite), strict=True))
    seconds = 0.0
    for model in models:
        gradient, forward = _seconds(frozen(model.network), images, min(batch_size, len(images)))
        seconds += len(images) * (gradients * gradient + forwards * forward)
    small = dict.fromkeys(trial.name for trial in suite if isinstance(trial.attack, DecisionBased))
    return Cost(gradients, forwards, seconds, tuple(small))


def _seconds(network: nn.Module, images: ImageDataset, count: int) -> tuple[float, float]:
    """Time gradient and forward pass of one image, on the largest batch in memory."""
    device = device_of(network)
    x, y, _ = (t.to(device) for t in images.batch(torch.arange(count)))
    differentiable = has_gradient(network, x[:1])  # where it is not, the suite is refused

    def timed(rows: Tensor) -> list[float]:
        part, labels = x[: len(rows)], y[: len(rows)]
        works: list[Callable[[], Tensor]] = [partial(input_gradient, network, part, labels, ce), partial(network, part)]
        return [_warm(work, device) / len(rows) for work in (works if differentiable else works[1:] * 2)]

    gradient, forward = next(AdaptiveBatchSize(count).map(torch.arange(count), timed))
    return gradient, forward


def _warm(work: Callable[[], Tensor], device: torch.device) -> float:
    """Return the seconds of the second of two runs, or of the first if it is long."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad():
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        if seconds > LONG:
            break
    return seconds
