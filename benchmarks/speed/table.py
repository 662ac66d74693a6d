"""Tables of the measured ratios. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.speed.results import Figure
from forefend.runtime.formatting import markdown_table, text_table

HEADING = ["case", "implementation", "against", "ratio", "quartiles", "target", "robust", "gradients per image"]


def text(figures: Sequence[Figure]) -> str:
    """Format a table for the terminal, one block per benchmark."""
    blocks = []
    for benchmark in dict.fromkeys(figure.benchmark for figure in figures):
        rows = [row(figure) for figure in figures if figure.benchmark == benchmark]
        blocks.append(f"{benchmark.upper()}\n{text_table(HEADING, rows)}\n")
    return "\n".join(blocks)


def markdown(figures: Sequence[Figure]) -> str:
    """Format a Markdown table that ends with a line break."""
    return markdown_table(HEADING, map(row, figures)) + "\n"


def row(figure: Figure) -> list[str]:
    """Format the cells of one figure; a missed target is marked."""
    target = "" if figure.target is None else f"{figure.target:g}" + (" MISSED" if figure.missed else "")
    unit = "" if figure.unit == "seconds" else f" ({figure.unit})"
    return [
        figure.case,
        figure.implementation,
        figure.against,
        f"{figure.ratio:.2f}{unit}",
        f"{figure.low:.2f}–{figure.high:.2f}",
        target,
        _pair(figure.parity, "robust", "{:.1%}"),
        _pair(figure.parity, "gradients", "{:.1f}"),
    ]


def _pair(parity: Mapping[str, Any], name: str, form: str) -> str:
    """Format a number of both implementations, where it is known."""
    numbers = [parity.get(name), parity.get(f"{name}_against")]
    return " / ".join(form.format(number) for number in numbers if number is not None)
