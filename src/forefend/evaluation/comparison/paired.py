"""The difference of two accuracies on the same images, with its interval. This module does not need torch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from forefend.evaluation.statistics import Z95, wilson


@dataclass(frozen=True)
class PairedDifference:
    """By how much a second model is more accurate than a first one; shares are in [-1, 1].

    Args:
        difference: the second accuracy less the first, on the shared images.
        low: lower end of the interval.
        high: upper end.
        n: the number of shared images.
        gained: how many of them only the second model classifies correctly.
        lost: how many of them only the first one does.
    """

    difference: float
    low: float
    high: float
    n: int
    gained: int
    lost: int

    def __str__(self) -> str:
        return f"{self.points} n={self.n}"

    @property
    def points(self) -> str:
        """The difference and its interval in percentage points."""
        text = f"{100 * self.difference:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return text.replace("-", "−")

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Mapping[Hashable, bool], second: Mapping[Hashable, bool], z: float = Z95
) -> PairedDifference | None:
    """Compare two models image by image; None if they share no image.

    Args:
        first: by image, whether the first model classifies it correctly.
        second: likewise for the second model.
        z: normal quantile; the default gives 95%.

    Source: Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17, method 10: Wilson's intervals with a correlation.
    """
    shared = first.keys() & second.keys()
    n = len(shared)
    if not n:
        return None
    both = sum(first[image] and second[image] for image in shared)
    gained = sum(second[image] for image in shared) - both
    lost = sum(first[image] for image in shared) - both
    p, q = (both + gained) / n, (both + lost) / n
    (p_low, p_high), (q_low, q_high) = wilson(both + gained, n, z), wilson(both + lost, n, z)
    phi = _correlation(both, gained, lost, n - both - gained - lost)
    below = math.sqrt(max(0.0, (p - p_low) ** 2 - 2 * phi * (p - p_low) * (q_high - q) + (q_high - q) ** 2))
    above = math.sqrt(max(0.0, (p_high - p) ** 2 - 2 * phi * (p_high - p) * (q - q_low) + (q - q_low) ** 2))
    return PairedDifference(p - q, p - q - below, p - q + above, n, gained, lost)


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Return the correlation of two verdicts, with Newcombe's correction for continuity where it is positive."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not margins:
        return 0.0
    excess: float = both * neither - gained * lost
    if excess > 0:
        excess = max(0.0, excess - (both + gained + lost + neither) / 2)
    return excess / math.sqrt(margins)
