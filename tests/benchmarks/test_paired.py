"""Paired differences: hand-computed values, the interval of scipy, and refused input."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.parity.paired import paired
from forefend.checks import InputError


def verdicts(text: str) -> dict[int, bool]:
    """Return verdicts of images 10, 11, ..., with an x for each misclassified one."""
    return {10 + number: letter == "x" for number, letter in enumerate(text)}


def test_paired_one_pair_matches_hand_computed_values() -> None:
    found = paired([verdicts("..x.")], [verdicts(".xxx")])
    assert (found.n, found.difference, found.each) == (4, 0.5, (0.5,))
    half = 1.959963984540054 * math.sqrt(
        ((2 + 1) / 6 - (2 / 6) ** 2) / 6
    )  # two ones, two zeros, and the two added images
    assert (found.low, found.high) == pytest.approx((2 / 6 - half, 2 / 6 + half))


def test_paired_averages_the_pairs_image_by_image() -> None:
    found = paired([verdicts("...x"), verdicts("....")], [verdicts("..xx"), verdicts("x...")])
    assert found.each == (0.25, 0.25)
    half = 1.959963984540054 * math.sqrt(((0.5 + 1) / 6 - (1 / 6) ** 2) / 6)  # 1/2, 0, 1/2, 0, and the two added images
    assert (found.difference, found.low) == pytest.approx((0.25, 1 / 6 - half))


def test_paired_equal_runs_have_an_interval_with_width() -> None:
    found = paired([verdicts("xxxx....")], [verdicts("xxxx....")])
    half = 1.959963984540054 * math.sqrt(0.1 / 10)
    assert (found.difference, found.low, found.high) == pytest.approx((0.0, -half, half))


def test_non_inferior_requires_the_whole_interval() -> None:
    found = paired([verdicts("x" + "." * 999)], [verdicts("." * 1000)])
    assert found.difference == -0.001
    assert found.non_inferior(0.01)
    assert not found.non_inferior(0.002)  # the mean lies above -0.2 %, the interval does not
    assert found.low < -0.002 < found.difference


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_paired_swapped_runs_give_the_negative(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = ({i: pair[which] for i, pair in enumerate(pairs)} for which in (0, 1))
    there, back = paired([ours], [theirs]), paired([theirs], [ours])
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_paired_many_images_match_the_interval_of_scipy() -> None:
    ours, theirs = [i % 7 == 0 for i in range(30_000)], [i % 5 == 0 for i in range(30_000)]
    found = paired([dict(enumerate(ours))], [dict(enumerate(theirs))])
    own = [int(b) - int(a) for a, b in zip(ours, theirs, strict=True)]
    low, high = stats.norm.interval(0.95, loc=sum(own) / 30_000, scale=stats.sem(own))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("n", "rate"), [(200, 0.05), (1000, 0.01), (1000, 0.1)])
def test_paired_interval_covers_the_true_rate(n: int, rate: float) -> None:
    """Sum the binomial probability of every count whose interval contains the rate."""
    covered = 0.0
    for count in range(n + 1):
        chance = stats.binom.pmf(count, n, rate)
        if chance > 1e-9:
            one = {i: i < count for i in range(n)}
            found = paired([dict.fromkeys(range(n), False)], [one])
            covered += chance * (found.low <= rate <= found.high)
    assert covered > 0.92


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        ([], [], "at least one pair"),
        ([verdicts("..")], [], "1 and 0 runs"),
        ([verdicts("..")], [verdicts("...")], "other images"),
        ([verdicts(".")], [verdicts(".")], "other images"),
    ],
)
def test_paired_bad_input_is_refused(first: list[dict[int, bool]], second: list[dict[int, bool]], word: str) -> None:
    with pytest.raises(InputError, match=word):
        paired(first, second)
