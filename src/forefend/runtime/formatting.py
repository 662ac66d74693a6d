"""Tables as text and Markdown, radii, and shares with their intervals. This module does not need torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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


def printable(text: str) -> str:
    r"""Return a text with a question mark for each character that would move the cursor or break a line.

    >>> printable("a\x1b[2Jb")
    'a?[2Jb'
    """
    return "".join(sign if sign.isprintable() else "?" for sign in text)


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


def format_radius(radius: float | Tensor) -> str:
    """Return the shortest exact text of a radius, such as `8/255`; `per image` for a tensor.

    >>> format_radius(8 / 255), format_radius(0.1)
    ('8/255', '0.1')
    """
    if hasattr(radius, "requires_grad"):
        return "per image"
    plain = f"{radius:g}"
    if float(plain) == radius:
        return plain
    levels = round(radius * 255)
    return f"{levels}/255" if levels / 255 == radius else repr(radius)
