"""Ratios: medians and quartiles by hand and by numpy, and figures that pair the rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speed.results import Figure, Point, figure, line, nearest, quartiles, ratios
from forefend.checks import InputError

OURS, PEER, SLOW = (Point("attack", "PGD", name) for name in ("ours", "peer", "slow"))
MEASURED = {
    OURS: [{"seconds": 1.0, "bytes": 10}, {"seconds": 2.0, "bytes": 10}, {"seconds": 4.0, "bytes": 10}],
    PEER: [{"seconds": 3.0, "bytes": 5}, {"seconds": 4.0, "bytes": 5}, {"seconds": 4.0, "bytes": 5}],
    SLOW: [{"seconds": 9.0}, {"seconds": 9.0}, {"seconds": 1.0}],
}


def test_quartiles_by_hand() -> None:
    assert quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0]) == (2.5, 1.75, 3.25)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    with pytest.raises(InputError, match="No round"):
        quartiles([])


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=9))
def test_quartiles_are_numpys_percentiles(values: list[float]) -> None:
    middle, low, high = np.percentile(values, [50, 25, 75])
    assert quartiles(values) == pytest.approx((middle, low, high))


def test_a_figure_pairs_the_rounds_and_then_takes_the_median() -> None:
    assert ratios(MEASURED[OURS], MEASURED[PEER]) == [3.0, 2.0, 1.0]
    found = figure(MEASURED, OURS, PEER, bar=2.5, robust=0.4)
    assert (found.ratio, found.low, found.high, found.rounds) == (2.0, 1.5, 2.5, 3)
    assert (found.subject, found.against, found.case, found.parity) == ("ours", "peer", "PGD", {"robust": 0.4})
    assert found.missed
    assert found.plain()["missed"] is True
    assert not figure(MEASURED, OURS, PEER, bar=2.0).missed
    assert not figure(MEASURED, OURS, PEER).missed
    assert figure(MEASURED, OURS, PEER, unit="bytes").ratio == 0.5


def test_two_cases_are_both_named() -> None:
    other = Point("attack", "APGD", "ours")
    assert figure({OURS: [{"seconds": 1.0}], other: [{"seconds": 2.0}]}, OURS, other).case == "PGD / APGD"


def test_the_nearest_is_so_by_its_median_ratio() -> None:
    assert nearest(MEASURED, OURS, [SLOW, PEER]) == PEER  # 4.5 and 2, though in one round the slow one needed least
    assert nearest(MEASURED, OURS, []) is None


def test_a_line_by_hand() -> None:
    assert line([1, 2, 3], [3.0, 5.0, 7.0]) == pytest.approx((2, 1, 1))
    assert line([0, 1, 2], [0.0, 1.0, 0.0]) == pytest.approx((0, 1 / 3, 0))
    assert line([0, 1], [2.0, 2.0]) == pytest.approx((0, 2, 1))


def test_rounds_that_do_not_pair_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios(MEASURED[OURS], MEASURED[PEER][:2])


def test_a_figure_is_json() -> None:
    plain = Figure("attack", "PGD", "ours", "peer", "seconds", 2.0, 1.0, 3.0, 5).plain()
    assert set(plain) >= {"subject", "against", "ratio", "low", "high", "rounds", "parity"}
