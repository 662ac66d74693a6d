from __future__ import annotations

import io
import sys

import pytest

from forefend.runtime import progress
from forefend.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that the monotonic clock shows; the test moves them."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_progress_prints_a_line_a_minute_and_none_at_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("it", 10, unit="steps") as bar:
        for _ in range(10):
            clock[0] += 25
            bar.advance()
    assert printed(capsys) == [
        *("it: 3 of 10 steps done, about 3 min left", "it: 6 of 10 steps done, about 100 s left"),
        "it: 9 of 10 steps done, about 25 s left",
    ]
    assert bar.elapsed == 250


def test_progress_print_restarts_the_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("it", 10, unit="steps") as bar:
        for epoch in range(1, 6):
            clock[0] += 50
            bar.advance(2)
            bar.print(f"epoch {epoch}, {bar.remaining:.0f} s left")
    assert printed(capsys) == [f"epoch {n}, {250 - 50 * n} s left" for n in range(1, 6)]


def test_progress_estimate_excludes_pieces_done_before(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("it", 100, unit="images", done=90) as bar:
        clock[0] += 61
        bar.advance()
    assert printed(capsys) == ["it: 91 of 100 images done, about 9 min left"]


def test_progress_disabled_or_on_terminal_prints_no_line(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for enabled, screen in ((False, io.StringIO()), (True, Terminal())):
        monkeypatch.setattr(sys, "stderr", screen)
        with Progress("it", 2, unit="steps", enabled=enabled) as bar:
            clock[0] += 100
            bar.advance()
            bar.note("loss 1.5")
            bar.print("epoch 1")
        assert printed(capsys) == []
        assert bool(screen.getvalue()) == enabled
