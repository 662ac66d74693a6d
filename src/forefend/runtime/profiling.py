"""Compute: what a piece of work costs in floating-point operations, forward passes, gradients and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Compute:
    """What a piece of work cost.

    Args:
        flops: operations of convolutions and matrix products, forwards and backwards, a multiply-add being two; what
            works element by element (BatchNorm, ReLU, an attack's step) is not counted.
        seconds: while being counted, which takes longer than the work alone; time it with `medians`.
        forwards: images that went forwards through the network that was watched.
        gradients: images whose gradient came back through it.
    """

    flops: int
    seconds: float
    forwards: int = 0
    gradients: int = 0


def count_compute(work: Callable[[], object], network: nn.Module | None = None) -> Compute:
    """Do the work once and count.

    Args:
        work: what to do.
        network: whose forward passes and gradients are counted, images to one tensor; a frozen view or a copy of it is
            another network. It is given back as it was.
    """
    passes = {"forwards": 0, "gradients": 0}
    counter = _Operations()
    with _watched(network, passes), counter:
        began = time.perf_counter()
        work()
        _finish()
        seconds = time.perf_counter() - began
    return Compute(counter.flops, seconds, **passes)


def median_seconds(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The median seconds of each piece of work, done in turns, so that a busy machine is unfair to none.

    Args:
        works: what to do; each is done once beforehand, untimed.
        rounds: how often each is timed.
    """
    found: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, seconds in zip(works, found, strict=True):
            began = time.perf_counter()
            work()
            _finish()
            if number:
                seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in found]


@final
class _Operations(TorchDispatchMode):
    """Adds up torch's own formulas; torch's own counter also tells modules apart, which autograd.grad breaks."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:  # what is made of other operations, such as a linear layer in inference mode
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=output))
        return output


@contextmanager
def _watched(network: nn.Module | None, passes: dict[str, int]) -> Iterator[None]:
    """Count the images that go through a network, there and back."""

    def back(gradient: Tensor) -> None:
        passes["gradients"] += len(gradient)

    def there(module: nn.Module, inputs: object, output: Tensor) -> None:
        passes["forwards"] += len(output)
        if output.requires_grad:
            output.register_hook(back)

    hook = network.register_forward_hook(there) if network is not None else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def _finish() -> None:
    """Wait for an accelerator, which works on while Python goes on."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
