"""Radii: certificates counted into certified accuracy, abstentions and the average radius, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .certificates import Certificate, Smoothing
from .interval import wilson


def certified(certificates: Sequence[Certificate], radius: float) -> int:
    """How many images are proved to keep their true class under every l2 change of no more than `radius`.

    Abstentions and wrong classes are not among them. The proof holds strictly inside each certificate's own radius, so
    that must be the larger one.

    Args:
        certificates: one for each image.
        radius: in [0, 1]-pixel units; 0 counts the images whose true class is certified at all.
    """
    return sum(c.proven > radius for c in certificates)


def predicted(certificates: Sequence[Certificate]) -> int:
    """How many clean images the smoothed classifier gets right, by PREDICT; abstentions count as wrong."""
    return sum(c.predicted == c.label for c in certificates)


def abstained(certificates: Sequence[Certificate]) -> int:
    """For how many images CERTIFY abstained."""
    return sum(c.certified is None for c in certificates)


def average_radius(certificates: Sequence[Certificate]) -> float:
    """The mean over all images of the radius certified, in [0, 1]-pixel units; a wrong class or an abstention is 0.

    Source: average certified radius, Zhai et al., arXiv 2001.02378, Eq. 3.
    """
    return sum(c.proven for c in certificates) / len(certificates)


def text(rows: Mapping[str, Sequence[Certificate]], radii: Sequence[float], smoothing: Smoothing) -> str:
    """A table for the terminal, and under it what it proves.

    Args:
        rows: the certificates of each network, by its name; each has at least one.
        radii: where to count certified accuracy, in [0, 1]-pixel units.
        smoothing: what all of them were certified with.
    """
    heading = ["smoothed", "clean", "abstained", *(f"L2 {radius:g}" for radius in radii), "ACR"]
    lines = [heading, *(_row(name, found, radii) for name, found in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([shown[0], "-" * (sum(widths) + 2 * len(widths) - 2), *shown[1:], caption(smoothing)])


def caption(smoothing: Smoothing) -> str:
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
    low, high = wilson(count, n)
    return f"{100 * count / n:.1f} [{100 * low:.1f}–{100 * high:.1f}] n={n}"
