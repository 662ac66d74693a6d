"""How far long work is: a line a minute where there is no terminal, and only from the process that speaks."""

from __future__ import annotations

import io
import sys

import pytest

from forefend.runtime import progress
from forefend.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed, in the hands of the test."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_line_a_minute_and_none_at_the_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("it", 10, unit="steps") as bar:
        for _ in range(10):
            clock[0] += 25
            bar.advance()
    assert told(capsys) == [
        *("it: 3 of 10 steps done, about 175 s left", "it: 6 of 10 steps done, about 100 s left"),
        "it: 9 of 10 steps done, about 25 s left",
    ]
    assert bar.passed == 250


def test_what_is_said_in_between_counts_as_a_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("it", 10, unit="steps") as bar:
        for epoch in range(1, 6):
            clock[0] += 50
            bar.advance(2)
            bar.say(f"epoch {epoch}, {bar.left:.0f} s left")
    assert told(capsys) == [f"epoch {n}, {250 - 50 * n} s left" for n in range(1, 6)]


def test_what_was_done_before_does_not_make_the_rest_look_fast(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("it", 100, unit="images", done=90) as bar:
        clock[0] += 61
        bar.advance()
    assert told(capsys) == ["it: 91 of 100 images done, about 549 s left"]


def test_others_are_silent_and_so_is_a_terminal(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for speaks, screen in ((False, io.StringIO()), (True, Terminal())):
        monkeypatch.setattr(sys, "stderr", screen)
        with Progress("it", 2, unit="steps", speaks=speaks) as bar:
            clock[0] += 100
            bar.advance()
            bar.note("loss 1.5")
            bar.say("epoch 1")
        assert told(capsys) == []
        assert bool(screen.getvalue()) == speaks
