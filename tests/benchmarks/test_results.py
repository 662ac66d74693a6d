"""Medians, quartiles and ratios, by hand and by numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speed.results import Figure, Point, figure, line, nearest, quartiles, ratios
from forefend.checks import InputError

OURS, FAST, SLOW = (Point("attack", "PGD", name) for name in ("ours", "fast", "slow"))
MEASURED = {
    OURS: [{"seconds": 1.0, "bytes": 10}, {"seconds": 2.0, "bytes": 10}, {"seconds": 4.0, "bytes": 10}],
    FAST: [{"seconds": 3.0, "bytes": 5}, {"seconds": 4.0, "bytes": 5}, {"seconds": 4.0, "bytes": 5}],
    SLOW: [{"seconds": 9.0}, {"seconds": 9.0}, {"seconds": 1.0}],
}


def test_quartiles_match_hand_computed_values() -> None:
    assert quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0]) == (2.5, 1.75, 3.25)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    with pytest.raises(InputError, match="No round"):
        quartiles([])


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=9))
def test_quartiles_match_numpy_percentiles(values: list[float]) -> None:
    middle, low, high = np.percentile(values, [50, 25, 75])
    assert quartiles(values) == pytest.approx((middle, low, high))


def test_figure_is_the_median_of_paired_rounds() -> None:
    assert ratios(MEASURED[OURS], MEASURED[FAST]) == [3.0, 2.0, 1.0]
    found = figure(MEASURED, OURS, FAST, target=2.5, robust=0.4)
    assert (found.ratio, found.low, found.high, found.rounds) == (2.0, 1.5, 2.5, 3)
    assert (found.implementation, found.against, found.case, found.parity) == ("ours", "fast", "PGD", {"robust": 0.4})
    assert found.missed
    assert found.to_json()["missed"] is True
    assert not figure(MEASURED, OURS, FAST, target=2.0).missed
    assert not figure(MEASURED, OURS, FAST).missed
    assert figure(MEASURED, OURS, FAST, unit="bytes").ratio == 0.5


def test_figure_of_two_cases_names_both() -> None:
    other = Point("attack", "APGD", "ours")
    assert figure({OURS: [{"seconds": 1.0}], other: [{"seconds": 2.0}]}, OURS, other).case == "PGD / APGD"


def test_nearest_has_the_smallest_median_ratio() -> None:
    assert nearest(MEASURED, OURS, [SLOW, FAST]) == FAST  # 4.5 and 2, though in one round the slow one needed least
    assert nearest(MEASURED, OURS, []) is None


def test_line_matches_hand_computed_values() -> None:
    assert line([1, 2, 3], [3.0, 5.0, 7.0]) == pytest.approx((2, 1, 1))
    assert line([0, 1, 2], [0.0, 1.0, 0.0]) == pytest.approx((0, 1 / 3, 0))
    assert line([0, 1], [2.0, 2.0]) == pytest.approx((0, 2, 1))


def test_ratios_of_unequal_rounds_raise() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios(MEASURED[OURS], MEASURED[FAST][:2])


def test_figure_from_json_inverts_to_json() -> None:
    found = Figure("attack", "PGD", "ours", "fast", "seconds", 2.0, 1.0, 3.0, 5, {"robust": 0.4}, 2.5)
    fields = found.to_json()
    assert (fields["question"], fields["subject"], fields["bar"], fields["missed"]) == ("attack", "ours", 2.5, True)
    assert Figure.from_json(fields) == found
