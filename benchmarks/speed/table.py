"""Speeds: the bench's figures as text and as Markdown. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.speed.results import Figure
from forefend.runtime.formatting import markdown_table

HEADING = ["case", "subject", "against", "ratio", "quartiles", "bar", "robust", "gradients an image"]


def text(figures: Sequence[Figure]) -> str:
    """A table for the terminal, a block for each question."""
    lines = []
    for question in dict.fromkeys(figure.question for figure in figures):
        rows = [HEADING, *(row(figure) for figure in figures if figure.question == question)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += [question.upper(), *("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows), ""]
    return "\n".join(lines)


def markdown(figures: Sequence[Figure]) -> str:
    """A table in Markdown, its lines ended."""
    return markdown_table(HEADING, map(row, figures)) + "\n"


def row(figure: Figure) -> list[str]:
    """One figure's cells; a missed bar is marked."""
    bar = "" if figure.bar is None else f"{figure.bar:g}" + (" MISSED" if figure.missed else "")
    unit = "" if figure.unit == "seconds" else f" ({figure.unit})"
    return [
        figure.case,
        figure.subject,
        figure.against,
        f"{figure.ratio:.2f}{unit}",
        f"{figure.low:.2f}–{figure.high:.2f}",
        bar,
        _pair(figure.parity, "robust", "{:.1%}"),
        _pair(figure.parity, "gradients", "{:.1f}"),
    ]


def _pair(parity: Mapping[str, Any], name: str, form: str) -> str:
    """A number of the subject's and of the other's, where they are known."""
    found = [parity.get(name), parity.get(f"{name}_against")]
    return " / ".join(form.format(number) for number in found if number is not None)
