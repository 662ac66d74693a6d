"""Measure the time of work: processor time of this process on a CPU, CUDA events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Output = TypeVar("Output")


def device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gpu() -> str:
    """Return the product name of the GPU; "" where there is none."""
    return torch.cuda.get_device_name() if device().type == "cuda" else ""


def timed(work: Callable[[], Output]) -> tuple[Output, float]:
    """Run the work and measure it.

    On a shared CPU the time of this process counts, because other processes slow down the wall clock.

    Returns:
        The result of the work, and its seconds.
    """
    if device().type == "cpu":
        began = time.process_time()
        result = work()
        return result, time.process_time() - began
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    result = work()
    last.record()
    torch.cuda.synchronize()
    return result, first.elapsed_time(last) / 1000


def now() -> float:
    """Return the processor time of this process, or on a GPU the wall clock once all kernels have finished."""
    if device().type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
