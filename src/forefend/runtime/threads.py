"""Threads: how many the arithmetic of this process takes, or processes its work, of what the machine has left."""

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
    """Set torch's number of threads and say it; where the environment has settled it, leave it.

    On a busy machine every thread waits for the one that was sent away, so that two take longer than one. Choose before
    any work is done, which would itself count as the machine's.
    """
    if not _set_by_environment():
        torch.set_num_threads(suitable_threads(available_cores(), os.cpu_count() or 1, os.getloadavg()[0]))
    return torch.get_num_threads()


@contextmanager
def use_threads(threads: int | None) -> Iterator[None]:
    """Go on for a while with the threads that something was begun with: another number rounds otherwise.

    Args:
        threads: how many; None, and what the environment has settled, leave what is.
    """
    with _threads(torch.get_num_threads() if threads is None or _set_by_environment() else threads):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread for a while."""
    with _threads(1):
        yield


def processes_in_memory() -> int:
    """How many processes such as this one, at its largest so far, memory holds; this one is among them."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that does not tell
        return 2
    return 1 + free // largest


def suitable_threads(available_cores: float, cores: int, load: float) -> int:
    """How many threads suit a machine: the cores that this process may use, less those at work for others.

    Args:
        allowed: cores that this process may use.
        cores: cores that the machine has.
        load: how many processes have wanted to run in the last minute, over the whole machine.
    """
    # Who may use some cores alone meets its share of the load there.
    busy = load * min(1.0, available_cores / cores)
    return max(1, round(available_cores - busy))


def available_cores() -> float:
    """The cores that this process may use, by its affinity and its container's quota."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = _QUOTA.read_text().split()
        return min(cores, float(quota) / float(period))
    except (OSError, ValueError):  # no container, or one without a limit, which writes "max"
        return cores


def _set_by_environment() -> bool:
    """Whether the environment has the last word."""
    return bool(os.environ.get("OMP_NUM_THREADS"))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
