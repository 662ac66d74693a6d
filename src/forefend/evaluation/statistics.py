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
    center = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if count == 0 else max(0.0, (center - spread) / scale)
    high = 1.0 if count == n else min(1.0, (center + spread) / scale)
    return low, high


def upper_tail(count: int, n: int, p: float) -> float:
    """The probability of at least `count` successes in `n` trials of probability `p`.

    Accurate to about 1e-10 relative for n up to 100,000, however small.

    Args:
        count: how many successes.
        n: how many trials, at least 0.
        p: probability of each, in [0, 1].
    """
    if count <= 0:
        return 1.0
    if count > n or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    if count <= n * p:  # below the mean the other tail is the short one
        return 1.0 - upper_tail(n - count + 1, n, 1.0 - p)
    odds, term, total = p / (1.0 - p), 1.0, 1.0
    for k in range(count, n):  # above the mean every term is smaller than the one before it
        term *= (n - k) / (k + 1) * odds
        total += term
        if term < 1e-17 * total:
            break
    return math.exp(_log_term(count, n, p)) * total


def lower_bound(count: int, n: int, alpha: float) -> float:
    """Clopper and Pearson's one-sided lower bound: the true share lies above it with probability at least 1 - alpha.

    It is the largest p under which at least `count` of `n` successes have a probability of no more than alpha.

    Args:
        count: how many of the `n` trials succeeded.
        n: how many trials there were, at least one.
        alpha: probability with which the bound may fail, in (0, 1).

    Source: Clopper and Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of the
    binomial"; used as LowerConfBound in Cohen et al., arXiv 1902.02918, section 3.2.2.
    """
    low, high = 0.0, 1.0
    for _ in range(100 if count else 0):
        middle = (low + high) / 2
        if upper_tail(count, n, middle) <= alpha:
            low = middle
        else:
            high = middle
    return low  # the end that errs on the safe side


def two_sided(a: int, b: int) -> float:
    """The p-value of `a` votes against `b` if each vote were a fair coin: two-sided and exact; 1 for no votes at all.

    Source: Hung and Fithian (2019), "Rank verification for exponential families", used as BinomPValue in Cohen et al.,
    arXiv 1902.02918, section 3.2.1.
    """
    return min(1.0, 2.0 * upper_tail(max(a, b), a + b, 0.5))


def _log_term(count: int, n: int, p: float) -> float:
    config = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    return config + count * math.log(p) + (n - count) * math.log1p(-p)
