"""Binomial bounds and p-values against known values and SciPy, and the coverage of bounds."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from forefend.evaluation.statistics import lower_bound, two_sided


@st.composite
def counts(draw: st.DrawFn, most: int = 100_000) -> tuple[int, int]:
    """A count out of n."""
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


@given(counts(), st.sampled_from([1e-6, 0.001, 0.05, 0.5, 0.9]))
def test_lower_bound_equals_clopper_pearson(pair: tuple[int, int], alpha: float) -> None:
    count, n = pair
    expected = stats.beta.ppf(alpha, count, n - count + 1) if count else 0.0
    assert lower_bound(count, n, alpha) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_lower_bound_tail_is_at_most_alpha() -> None:
    for count, n, alpha in ((9, 10, 0.001), (99, 100, 0.05), (99_990, 100_000, 0.001), (1, 1, 0.5)):
        assert stats.binom.sf(count - 1, n, lower_bound(count, n, alpha)) <= alpha * (1 + 1e-9)


def test_lower_bound_of_all_votes_is_a_root_of_alpha() -> None:
    assert lower_bound(1000, 1000, 0.001) == pytest.approx(0.001 ** (1 / 1000), abs=1e-14)
    assert lower_bound(0, 1000, 0.001) == 0


@given(counts())
def test_two_sided_equals_scipy(pair: tuple[int, int]) -> None:
    a, n = pair
    assert two_sided(a, n - a) == pytest.approx(stats.binomtest(a, n, 0.5).pvalue, rel=1e-8, abs=1e-300)


def test_two_sided_of_few_votes_equals_hand_counts() -> None:
    assert two_sided(0, 0) == two_sided(1, 0) == two_sided(3, 3) == two_sided(4, 3) == 1
    assert two_sided(5, 0) == two_sided(0, 5) == pytest.approx(2 / 2**5, rel=1e-12)
    assert two_sided(9, 1) == pytest.approx(2 * (10 + 1) / 2**10, rel=1e-12)


@pytest.mark.parametrize("n", [10, 37, 200])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_lower_bound_has_its_exact_coverage(n: int, alpha: float) -> None:
    bounds = [lower_bound(count, n, alpha) for count in range(n + 1)]
    failures = []
    for p in [0.01, 0.3, 0.5, 0.77, 0.95, 0.999, *(bound - 1e-9 for bound in bounds[n // 2 :])]:
        failures.append(sum(stats.binom.pmf(k, n, p) for k in range(n + 1) if bounds[k] > p))
    assert max(failures) <= alpha * (1 + 1e-5)
    assert max(failures) > 0.99 * alpha  # where p lies just below a bound, nothing is given away


def test_lower_bound_covers_in_repetitions() -> None:
    p, n, alpha, repetitions = 0.83, 400, 0.05, 4000
    drawn = torch.distributions.Binomial(n, torch.tensor(p)).sample((repetitions,)).int().tolist()
    bound = {count: lower_bound(count, n, alpha) for count in set(drawn)}
    failed = sum(bound[count] > p for count in drawn)
    spread = math.sqrt(repetitions * alpha * (1 - alpha))
    assert failed <= repetitions * alpha + 3 * spread
    assert failed >= repetitions * alpha / 2  # a bound that hardly ever fails would be too timid


def test_lower_bound_of_100000_votes_is_fast() -> None:
    began = time.process_time()
    for count in (50_001, 60_000, 99_000, 99_999):
        lower_bound(count, 100_000, 0.001)
        two_sided(count, 100_000 - count)
    assert time.process_time() - began < 2
