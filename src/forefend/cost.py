"""Cost: what a suite will take, said before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .attacks.pgd import input_gradient
from .data import Images
from .evaluation import Subject
from .losses import ce
from .modes import device_of, frozen
from .trial import Suite

LONG = 5.0  # seconds after which a batch is not tried twice


def cost_of(subjects: Sequence[Subject], images: Images, suite: Suite, batch_size: int) -> str:
    """One sentence: gradients and forward passes an image at most, and the time that they take as measured on a batch.

    Args:
        subjects: what will be attacked; each is timed on its own.
        images: how many, and which are timed.
        suite: what will be run.
        batch_size: images attacked at once.
    """
    gradients, forwards = (sum(count) for count in zip(*((t.gradients(), t.forwards()) for t in suite), strict=True))
    seconds = 0.0
    for subject in subjects:
        gradient, forward = _timed(subject, images, min(batch_size, len(images)))
        seconds += len(images) * (gradients * gradient + forwards * forward)
    return (
        f"At most {gradients} gradients and {forwards} further forward passes an image, {_spelled(seconds)} for all of "
        "them as measured on one batch; images that are lost early cost less."
    )


def _timed(subject: Subject, images: Images, count: int) -> tuple[float, float]:
    """Seconds of one image's gradient and of its forward pass: the second of two tries, or the first if it is long."""
    network = frozen(subject.network)
    x, y, _ = (t.to(device_of(network)) for t in images.batch(torch.arange(count)))
    found = []
    with torch.enable_grad():
        flows = network(x[:1].requires_grad_()).requires_grad  # where none does, the suite will be refused
    works: list[Callable[[], Tensor]] = [partial(input_gradient, network, x, y, ce), partial(network, x)]
    for work in works if flows else works[1:] * 2:
        for _ in range(2):
            began = time.perf_counter()
            with torch.no_grad():
                work()
            _finished(x.device)
            taken = time.perf_counter() - began
            if taken > LONG:
                break
        found.append(taken / count)
    return found[0], found[1]


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _spelled(seconds: float) -> str:
    """A duration as one reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
