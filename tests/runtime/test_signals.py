from __future__ import annotations

import os
import signal
import threading

import pytest

from forefend.runtime.signals import Interrupted, catch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_catch_signals_collects_signal_and_continues(number: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with catch_signals() as received:
        assert received == []
        os.kill(os.getpid(), number)
        assert received == [number]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def twice() -> None:
    with catch_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received
        os.kill(os.getpid(), signal.SIGTERM)


def test_second_signal_raises_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGTERM) is before


def test_catch_signals_in_other_thread_keeps_handlers() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with catch_signals() as received:
            seen.append((list(received), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], True)]


def test_interrupted_is_keyboard_interrupt() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt)
