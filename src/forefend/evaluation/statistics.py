"""Confidence intervals and tests for shares."""

from __future__ import annotations

import math
from typing import Any

from forefend.checks import import_extra

Z95 = 1.959963984540054  # the normal quantile that leaves 2.5% above it


def wilson(count: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval for a share `count / n`; it is within [0, 1], also at 0 and n.

    Args:
        count: how many of the `n` images counted.
        n: the number of images, at least one.
        z: normal quantile; the default gives 95%.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    share = count / n
    center = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if count == 0 else max(0.0, (center - spread) / scale)
    high = 1.0 if count == n else min(1.0, (center + spread) / scale)
    return low, high


def lower_bound(count: int, n: int, alpha: float) -> float:
    """Return Clopper and Pearson's lower bound on a share, which holds with probability 1 - alpha.

    Args:
        count: how many of the `n` trials succeeded.
        n: the number of trials, at least one.
        alpha: probability with which the bound may fail, in (0, 1).

    Source: Clopper and Pearson (1934), "The use of confidence or fiducial limits illustrated in the
    case of the binomial"; used as LowerConfBound in Cohen et al., arXiv 1902.02918, section 3.2.2.
    """
    return float(_scipy_stats().beta.ppf(alpha, count, n - count + 1)) if count else 0.0


def two_sided(a: int, b: int) -> float:
    """Return the exact two-sided p-value of `a` votes against `b` under a fair coin.

    Source: Hung and Fithian (2019), "Rank verification for exponential families", used as
    BinomPValue in Cohen et al., arXiv 1902.02918, section 3.2.1.
    """
    return float(_scipy_stats().binomtest(a, a + b, 0.5).pvalue) if a + b else 1.0


def _scipy_stats() -> Any:
    return import_extra("scipy.stats", "Certifying", "eval")
