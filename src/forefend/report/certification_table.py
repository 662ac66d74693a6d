"""Radii: certificates counted into certified accuracy, abstentions and the average radius, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forefend.evaluation.certification.certificate import (
    Certificate,
    SmoothingConfig,
    abstained,
    average_radius,
    certified,
    predicted,
)
from forefend.evaluation.statistics import wilson
from forefend.runtime.formatting import percent, text_table


def text(rows: Mapping[str, Sequence[Certificate]], radii: Sequence[float], smoothing: SmoothingConfig) -> str:
    """A table for the terminal, and under it what it proves.

    Args:
        rows: the certificates of each network, by its name; each has at least one.
        radii: where to count certified accuracy, in [0, 1]-pixel units.
        smoothing: what all of them were certified with.
    """
    heading = ["smoothed", "clean", "abstained", *(f"L2 {radius:g}" for radius in radii), "ACR"]
    table = text_table(heading, [_row(name, found, radii) for name, found in rows.items()])
    return table + "\n" + caption(smoothing)


def caption(smoothing: SmoothingConfig) -> str:
    """What such a table proves, and what it does not."""
    return (
        f"certified accuracy in %, [95% Wilson interval over images]; abstentions count as wrong; {smoothing}\n"
        "L2 columns are proved: for the smoothed classifier alone, in l2, for each image with probability at least "
        f"1 - {smoothing.alpha:g}; no radius above {smoothing.largest_radius:.4g} can be.\n"
        "clean is PREDICT's accuracy; ACR the average certified radius. Only certify proves; what evaluate reports is "
        "measured."
    )


def _row(name: str, found: Sequence[Certificate], radii: Sequence[float]) -> list[str]:
    counts = [predicted(found), abstained(found), *(certified(found, radius) for radius in radii)]
    return [name, *(_share(count, len(found)) for count in counts), f"{average_radius(found):.3f}"]


def _share(count: int, n: int) -> str:
    return percent(count / n, *wilson(count, n), n)
