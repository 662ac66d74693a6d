"""Interrupt: be asked to stop, finish the step, and say so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Work was asked to stop, and its state is on disk: the same call goes on from there."""


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a step is finished before the loop obeys; a second one is not waited for.

    Returns:
        A list that holds the signal's number once it has arrived.
    """
    received: list[int] = []
    old: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            old[number] = signal.signal(number, note)
    except ValueError:  # only the main thread may listen; elsewhere the caller handles signals
        pass
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
