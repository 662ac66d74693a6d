from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forefend.evaluation.statistics import wilson

counts = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


# The first two are Newcombe's (1998, Statistics in Medicine 17, Table I, method 3), to the four places he prints.
@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_published_intervals(count: int, n: int, low: float, high: float) -> None:
    assert wilson(count, n) == pytest.approx((low, high), abs=5e-5)


@given(of=counts)
def test_wilson_equals_scipy(of: tuple[int, int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    interval = stats.binomtest(*of).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(*of) == pytest.approx((interval.low, interval.high), abs=1e-12)


@given(of=counts)
def test_wilson_contains_the_share_within_0_1(of: tuple[int, int]) -> None:
    low, high = wilson(*of)
    assert 0 <= low <= of[0] / of[1] <= high <= 1
    assert (low == 0) == (of[0] == 0)
    assert (high == 1) == (of[0] == of[1])


@given(of=counts)
def test_wilson_of_the_complement_is_mirrored(of: tuple[int, int]) -> None:
    low, high = wilson(of[1] - of[0], of[1])
    assert wilson(*of) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(of=counts)
def test_wilson_narrows_with_images_and_confidence(of: tuple[int, int]) -> None:
    low, high = wilson(*of)
    for narrower in (wilson(10 * of[0], 10 * of[1]), wilson(*of, z=1.0)):
        assert narrower[1] - narrower[0] < high - low
