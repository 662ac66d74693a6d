"""Paired differences: hand-computed numbers, scipy's own paired interval, and refusals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.parity.paired import paired
from forefend.checks import InputError


def lost(word: str) -> dict[int, bool]:
    """Verdicts of images 10, 11, ..., an x for each that is lost."""
    return {10 + place: letter == "x" for place, letter in enumerate(word)}


def test_a_difference_counted_by_hand() -> None:
    found = paired([lost("..x.")], [lost(".xxx")])
    assert (found.n, found.difference, found.each) == (4, 0.5, (0.5,))
    half = 1.959963984540054 * math.sqrt(((2 + 1) / 6 - (2 / 6) ** 2) / 6)  # two ones and two noughts, and two more
    assert (found.low, found.high) == pytest.approx((2 / 6 - half, 2 / 6 + half))


def test_pairs_are_averaged_image_by_image() -> None:
    found = paired([lost("...x"), lost("....")], [lost("..xx"), lost("x...")])
    assert found.each == (0.25, 0.25)
    half = 1.959963984540054 * math.sqrt(((0.5 + 1) / 6 - (1 / 6) ** 2) / 6)  # 1/2, 0, 1/2, 0, and two more
    assert (found.difference, found.low) == pytest.approx((0.25, 1 / 6 - half))


def test_what_agrees_throughout_is_not_certain() -> None:
    found = paired([lost("xxxx....")], [lost("xxxx....")])
    half = 1.959963984540054 * math.sqrt(0.1 / 10)
    assert (found.difference, found.low, found.high) == pytest.approx((0.0, -half, half))


def test_non_inferiority_asks_for_the_whole_interval() -> None:
    found = paired([lost("x" + "." * 999)], [lost("." * 1000)])
    assert found.difference == -0.001
    assert found.non_inferior(0.01)
    assert not found.non_inferior(0.002)  # the mean lies above -0.2 %, the interval does not
    assert found.low < -0.002 < found.difference


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_the_other_way_round_is_the_mirror(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = ({i: pair[which] for i, pair in enumerate(pairs)} for which in (0, 1))
    there, back = paired([ours], [theirs]), paired([theirs], [ours])
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_with_many_images_it_is_the_interval_of_a_library() -> None:
    ours, theirs = [i % 7 == 0 for i in range(30_000)], [i % 5 == 0 for i in range(30_000)]
    found = paired([dict(enumerate(ours))], [dict(enumerate(theirs))])
    own = [int(b) - int(a) for a, b in zip(ours, theirs, strict=True)]
    low, high = stats.norm.interval(0.95, loc=sum(own) / 30_000, scale=stats.sem(own))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("n", "rate"), [(200, 0.05), (1000, 0.01), (1000, 0.1)])
def test_the_interval_holds_the_truth_nearly_as_often_as_it_says(n: int, rate: float) -> None:
    """One way loses what the other does and more, each image with this chance: summed over every count there may be."""
    held = 0.0
    for count in range(n + 1):
        chance = stats.binom.pmf(count, n, rate)
        if chance > 1e-9:
            one = {i: i < count for i in range(n)}
            found = paired([dict.fromkeys(range(n), False)], [one])
            held += chance * (found.low <= rate <= found.high)
    assert held > 0.92


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        ([], [], "give pairs"),
        ([lost("..")], [], "1 runs stand beside 0"),
        ([lost("..")], [lost("...")], "not judged on the same"),
        ([lost(".")], [lost(".")], "not judged on the same"),
    ],
)
def test_what_is_no_pair_is_refused(first: list[dict[int, bool]], second: list[dict[int, bool]], word: str) -> None:
    with pytest.raises(InputError, match=word):
        paired(first, second)
