"""Tables as text and Markdown, and shares with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table for the terminal, with aligned columns and a rule under the heading."""
    cells = [heading, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table in Markdown, without a line break at its end."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [heading, ["---"] * len(heading), *rows])


def percent(share: float, low: float, high: float, n: int | None = None) -> str:
    """Format a share in percent with its interval and, where it is given, the number of images.

    >>> percent(0.981, 0.966, 0.99, 539)
    '98.1 [96.6–99.0] n=539'
    """
    count = "" if n is None else f" n={n}"
    return f"{100 * share:.1f} [{100 * low:.1f}–{100 * high:.1f}]{count}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "model"), counted(2, "image")
    ('1 model', '2 images')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours.

    >>> duration(119), duration(125), duration(7300)
    ('119 s', '2 min', '2.0 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
