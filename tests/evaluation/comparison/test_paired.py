from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forefend.evaluation.comparison.paired import paired_difference


def verdicts(both: int, gained: int, lost: int, neither: int) -> tuple[dict[int, bool], dict[int, bool]]:
    """The verdicts of two models that agree and differ on so many images."""
    first = [True] * both + [False] * gained + [True] * lost + [False] * neither
    second = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return dict(enumerate(first)), dict(enumerate(second))


# Table III of Newcombe (1998), method 10.
@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((36, 14, 0, 0), (0.1528, 0.4167)),
        ((1, 97, 1, 1), (0.8737, 0.9850)),
    ],
)
def test_intervals_are_those_of_the_paper(counts: tuple[int, int, int, int], interval: tuple[float, float]) -> None:
    found = paired_difference(*verdicts(*counts))
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == interval
    assert found.difference == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert (found.n, found.gained, found.lost) == (sum(counts), counts[1], counts[2])


def test_only_shared_images_count() -> None:
    first, second = {1: True, 2: False, 3: True}, {2: True, 3: True, 4: False}
    found = paired_difference(first, second)
    assert found is not None
    assert (found.n, found.gained, found.lost, found.difference) == (2, 1, 0, 0.5)
    assert paired_difference({1: True}, {2: True}) is None
    assert paired_difference({}, {}) is None


@given(st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_interval_holds_the_difference_and_turns_with_the_order(counts: tuple[int, int, int, int]) -> None:
    first, second = verdicts(*counts)
    found, turned = paired_difference(first, second), paired_difference(second, first)
    assert found is not None
    assert turned is not None
    assert -1 - 1e-9 <= found.low <= found.difference <= found.high <= 1 + 1e-9
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    wider = paired_difference(first, second, z=2.6)
    assert wider is not None
    assert wider.low <= found.low + 1e-12
    assert wider.high >= found.high - 1e-12


def test_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shares, held = [0.5, 0.15, 0.05, 0.3], 0
    for counts in rng.multinomial(100, shares, size=1000):
        found = paired_difference(*verdicts(*map(int, counts)))
        assert found is not None
        held += found.low <= 0.1 <= found.high
    assert 0.93 < held / 1000 < 0.985


def test_text_has_the_signs_the_interval_and_n() -> None:
    found = paired_difference(*verdicts(36, 12, 2, 0))
    assert str(found) == "+20.0 [+5.7, +34.0] n=50"
    assert found is not None
    assert str(paired_difference(*verdicts(36, 2, 12, 0))).startswith("−20.0 [−34.0, −5.7]")
    assert found.is_clear
    same = paired_difference(*verdicts(10, 0, 0, 10))
    assert same is not None
    assert not same.is_clear
    assert math.isclose(same.low, -same.high)
