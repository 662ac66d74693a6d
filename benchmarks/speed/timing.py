"""Stopwatch: how long work takes; on a shared processor its own time counts, not the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Output = TypeVar("Result")


def device() -> torch.device:
    """The best device there is."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gpu() -> str:
    """The accelerator, as its maker calls it; "" where there is none."""
    return torch.cuda.get_device_name() if device().type == "cuda" else ""


def timed(work: Callable[[], Output]) -> tuple[Output, float]:
    """Do the work; its result, and the seconds that this process computed, or those between two CUDA events.

    Args:
        work: what to do.
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
    """Seconds that this process has computed, or on an accelerator those on the clock once it has finished."""
    if device().type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
