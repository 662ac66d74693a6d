"""Finish the current step before stopping on SIGINT or SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal stopped the work after its state was saved; the same call resumes it."""


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; a second signal raises KeyboardInterrupt at once.

    Returns:
        A list that holds the number of the signal once it has arrived.
    """
    received: list[int] = []
    old: dict[int, Any] = {}

    def collect(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            old[number] = signal.signal(number, collect)
    except ValueError:  # only the main thread may set handlers; elsewhere the caller handles signals
        pass
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
