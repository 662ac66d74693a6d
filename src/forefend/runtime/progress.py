"""Progress of long work: a bar on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import time
from typing import final

from tqdm import tqdm

from forefend.runtime.formatting import duration

MINUTE = 60.0  # between two lines


@final
class Progress:
    """Show the progress of long work, if `enabled`.

    The estimate of the remaining time excludes pieces that were `done` before.
    """

    def __init__(self, title: str, total: int, *, unit: str, done: int = 0, enabled: bool = True) -> None:
        disable = None if enabled else True
        self.bar = tqdm(total=total, initial=done, desc=title, unit=unit, disable=disable, smoothing=0.05)
        self.print_lines = bool(enabled and self.bar.disable)  # not on a terminal
        self.title, self.total, self.unit = title, total, unit
        self.first = self.done = done
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def remaining(self) -> float:
        """Estimated seconds until the end; at least one piece must have been done."""
        return self.elapsed * (self.total - self.done) / (self.done - self.first)

    def advance(self, count: int = 1) -> None:
        """Count more pieces as done."""
        self.done += count
        self.bar.update(count)
        if self.done < self.total and time.monotonic() - self.printed > MINUTE:
            self.print(
                f"{self.title}: {self.done} of {self.total} {self.unit} done, about {duration(self.remaining)} left"
            )

    def note(self, text: str) -> None:
        """Show a text beside the bar."""
        self.bar.set_postfix_str(text)

    def print(self, text: str) -> None:
        """Print a line where there is no bar."""
        self.printed = time.monotonic()
        if self.print_lines:
            print(text, flush=True)
