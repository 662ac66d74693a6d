"""Interval: how far a measured share may lie from the truth."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # the normal quantile that leaves 2.5% above it


def wilson(count: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a share `count / n`; it stays in [0, 1] and is sensible at 0 and at n.

    Args:
        count: how many of the `n` images counted.
        n: how many images there were, at least one.
        z: normal quantile; the default gives 95%.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    share = count / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if count == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if count == n else min(1.0, (centre + spread) / scale)
    return low, high
