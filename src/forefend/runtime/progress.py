"""Progress: how far long work is, as a bar on a terminal and elsewhere as a line a minute."""

from __future__ import annotations

import time
from typing import final

from tqdm import tqdm

MINUTE = 60.0  # between two words on how far it is


@final
class Progress:
    """Tells how far work has come, from the process that speaks.

    Args:
        title: what is done.
        total: how many pieces there are.
        unit: what a piece is called.
        done: how many were done before; the time that is left is told by the others.
        speaks: whether this process tells at all.
    """

    def __init__(self, title: str, total: int, *, unit: str, done: int = 0, speaks: bool = True) -> None:
        disable = None if speaks else True
        self.bar = tqdm(total=total, initial=done, desc=title, unit=unit, disable=disable, smoothing=0.05)
        self.silent = bool(speaks and self.bar.disable)  # not on a terminal: a line now and then
        self.title, self.total, self.unit = title, total, unit
        self.first = self.done = done
        self.began = self.said = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def passed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds that the rest will take, if it goes on like this; something must have been done."""
        return self.passed * (self.total - self.done) / (self.done - self.first)

    def advance(self, count: int = 1) -> None:
        """So many more pieces are done."""
        self.done += count
        self.bar.update(count)
        if self.done < self.total and time.monotonic() - self.said > MINUTE:
            self.say(f"{self.title}: {self.done} of {self.total} {self.unit} done, about {self.left:.0f} s left")

    def note(self, words: str) -> None:
        """Show beside the bar what came of the work so far."""
        self.bar.set_postfix_str(words)

    def say(self, words: str) -> None:
        """Print a line where there is no bar."""
        self.said = time.monotonic()
        if self.silent:
            print(words, flush=True)
