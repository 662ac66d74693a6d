"""Choose the number of threads and processes from the free cores and memory of the machine."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def choose_threads() -> int:
    """Set torch's number of threads, unless OMP_NUM_THREADS is set, and return it.

    On a busy machine every thread waits for the slowest, so that two threads may be slower than
    one. Call this before any computation, which would count as load.
    """
    if not _set_by_environment():
        torch.set_num_threads(suitable_threads(available_cores(), os.cpu_count() or 1, os.getloadavg()[0]))
    return torch.get_num_threads()


@contextmanager
def use_threads(threads: int | None) -> Iterator[None]:
    """Compute with the threads of an earlier run inside the context: they affect rounding.

    None changes nothing, nor does any number where OMP_NUM_THREADS is set.
    """
    with torch_threads(torch.get_num_threads() if threads is None or _set_by_environment() else threads):
        yield


def processes_in_memory() -> int:
    """Return how many processes of the peak size of this one fit in memory, itself included."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # the system does not report free memory
        return 2
    return 1 + free // largest


def suitable_threads(allowed: float, cores: int, load: float) -> int:
    """Return the allowed cores less the busy ones, by the load average, at least 1."""
    # A process that may use only some cores competes with its share of the load.
    busy = load * min(1.0, allowed / cores)
    return max(1, round(allowed - busy))


def available_cores() -> float:
    """Return the cores that this process may use, by affinity and quota of its container."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = _QUOTA.read_text().split()
        return min(cores, float(quota) / float(period))
    except (OSError, ValueError):  # no container, or one without a limit, which writes "max"
        return cores


def _set_by_environment() -> bool:
    return bool(os.environ.get("OMP_NUM_THREADS"))


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Compute with a number of threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
