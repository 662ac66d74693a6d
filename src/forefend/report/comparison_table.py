"""Comparison: a defense beside its rivals, what each paid, and who wins under attack. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from forefend.evaluation.comparison.results import Row
from forefend.evaluation.results import Result
from forefend.runtime.formatting import markdown_table, percent, text_table

HEADING = [
    *("contestant", "clean", "worst attack", "attacked", "classifier changed", "training GFLOP"),
    *("MFLOP an image", "ms an image (1)", "ms an image (64)", "parameters added", "KiB added"),
]


def verdict(rows: Sequence[Row], ours: str) -> str:
    """Who wins under attack, in one sentence, computed from the rows.

    A winner's 95% interval overlaps with nobody else's; the images are the same for all, so this is cautious.

    Args:
        rows: the contestants, two at least.
        ours: name of the defense that is compared.
    """
    ranked = sorted(rows, key=lambda row: -row.worst.accuracy)
    best = ranked[0]
    leaders = [row for row in ranked if row.worst.high >= best.worst.low]
    our = next(row for row in rows if row.name == ours)
    if len(leaders) == 1:
        other = ranked[1] if best is our else our
        return f"Under attack {_short(best)} wins: {_percent(best)} against {_percent(other)} of {_short(other)}."
    names = [f"{_short(row)} ({_percent(row)})" for row in leaders]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    below = "" if our in leaders else f"; {ours} ({_percent(our)}) lies below"
    return f"Under attack there is no clear winner, as the intervals overlap: {listed}{below}."


def text(rows: Sequence[Row]) -> str:
    """A table for the terminal."""
    return text_table(HEADING, map(_words, rows))


def markdown(rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    return markdown_table(HEADING, map(_words, rows))


def _words(row: Row) -> list[str]:
    price = row.price
    return [
        row.name,
        _cell(row.clean),
        _cell(row.worst),
        row.attacked,
        "yes" if row.changed else "no",
        f"{price.training_flops / 1e9:.1f}",
        f"{price.forward_flops / 1e6:.2f}",
        f"{price.ms_alone:.2f}",
        f"{price.ms_batched:.3f}",
        str(price.parameters),
        f"{price.kilobytes:.0f}",
    ]


def _short(row: Row) -> str:
    """The name without its settings."""
    return row.name.partition(" (")[0]


def _cell(cell: Result) -> str:
    return percent(cell.accuracy, cell.low, cell.high, cell.n)


def _percent(row: Row) -> str:
    return f"{100 * row.worst.accuracy:.1f} %"
