"""Measure the floating-point operations, forward passes, gradients and time of a computation."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Compute:
    """The cost of a computation.

    Args:
        flops: operations of convolutions and matrix products, forward and backward, two for a
            multiply-add; elementwise operations (BatchNorm, ReLU, the step of an attack) are not
            counted.
        seconds: time while counting, which is slower than the computation alone; `median_seconds`
            measures that.
        forwards: images that passed forward through the counted network.
        gradients: images whose gradient passed back through it.
    """

    flops: int
    seconds: float
    forwards: int = 0
    gradients: int = 0


def count_compute(function: Callable[[], object], network: nn.Module | None = None) -> Compute:
    """Call a function once and return its cost.

    Args:
        function: the computation.
        network: the network, images to one tensor, whose forward passes and gradients are counted;
            those of frozen views and copies are not.
    """
    passes = {"forwards": 0, "gradients": 0}
    counter = _Operations()
    with _count_images(network, passes), counter:
        seconds = _seconds(function)
    return Compute(counter.flops, seconds, **passes)


def median_seconds(functions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median seconds of each function, called in turns so that load affects all alike.

    Each function is called once untimed, then `rounds` times.
    """
    found = [[_seconds(function) for function in functions] for _ in range(rounds + 1)]
    return [statistics.median(seconds) for seconds in zip(*found[1:], strict=True)]


@final
class _Operations(TorchDispatchMode):
    """Add up torch's formulas; torch's own counter fails under `autograd.grad`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:  # composed of other operations, such as a linear layer in inference mode
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=output))
        return output


@contextmanager
def _count_images(network: nn.Module | None, passes: dict[str, int]) -> Iterator[None]:
    def backward(gradient: Tensor) -> None:
        passes["gradients"] += len(gradient)

    def forward(module: nn.Module, inputs: object, output: Tensor) -> None:
        passes["forwards"] += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    hook = network.register_forward_hook(forward) if network is not None else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # calls return before the GPU has finished
    return time.perf_counter() - began


def peak_bytes(function: Callable[[], object]) -> int:
    """Call a function once and return the most bytes of computed tensors that it holds at a time.

    Tensors that exist before are not counted, nor is memory inside one operation. Views count once.
    """
    tracker = _LiveTensors()
    with tracker:
        function()
    return tracker.peak


@final
class _LiveTensors(TorchDispatchMode):
    """Count the bytes of the tensors that operations return, until Python releases them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._holders: dict[int, tuple[int, int]] = {}  # by storage: tensors that hold it, and its bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and (_storage(value) in self._holders or _storage(value) not in given):
                self._hold(value)
        self.peak = max(self.peak, sum(size for _, size in self._holders.values()))
        return result

    def _hold(self, value: Tensor) -> None:
        storage = _storage(value)
        holders, _ = self._holders.get(storage, (0, 0))
        self._holders[storage] = holders + 1, value.untyped_storage().nbytes()
        weakref.finalize(value, self._release, storage)

    def _release(self, storage: int) -> None:
        holders, size = self._holders[storage]
        if holders == 1:
            del self._holders[storage]
        else:
            self._holders[storage] = holders - 1, size


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()
