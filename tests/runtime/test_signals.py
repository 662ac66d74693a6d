from __future__ import annotations

import os
import signal
import threading

import pytest

from forefend.runtime.signals import Interrupted, catch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_work_goes_on(number: int) -> None:
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


def test_a_second_signal_is_not_waited_for_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGTERM) is before


def test_off_the_main_thread_the_caller_s_handlers_stay() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with catch_signals() as received:
            seen.append((list(received), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], True)]


def test_being_interrupted_is_a_keyboard_interrupt() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt)
