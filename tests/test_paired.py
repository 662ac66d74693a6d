"""Paired differences: hand-computed numbers, scipy's own paired interval, and refusals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forefend.checks import InputError
from forefend.paired import paired


def lost(word: str) -> dict[int, bool]:
    """Verdicts of images 10, 11, ..., an x for each that is lost."""
    return {10 + place: letter == "x" for place, letter in enumerate(word)}


def test_a_difference_counted_by_hand() -> None:
    found = paired([lost("..x.")], [lost(".xxx")])
    assert (found.n, found.difference, found.each) == (4, 0.5, (0.5,))
    half = 1.959963984540054 * math.sqrt((4 * 0.25) / 3 / 4)  # each image's difference is 0 or 1, the mean a half
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_pairs_are_averaged_image_by_image() -> None:
    found = paired([lost("...x"), lost("....")], [lost("..xx"), lost("x...")])
    assert found.each == (0.25, 0.25)
    half = 1.959963984540054 * math.sqrt((4 * 0.0625) / 3 / 4)  # 1/2, 0, 1/2, 0
    assert (found.difference, found.low) == pytest.approx((0.25, 0.25 - half))


def test_what_both_lose_widens_nothing() -> None:
    certain = paired([lost("xxxx....")], [lost("xxxx....")])
    assert (certain.difference, certain.low, certain.high) == (0.0, 0.0, 0.0)


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


def test_the_interval_of_a_library() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    ours, theirs = [i % 7 == 0 for i in range(300)], [i % 5 == 0 for i in range(300)]
    found = paired([dict(enumerate(ours))], [dict(enumerate(theirs))])
    own = [int(b) - int(a) for a, b in zip(ours, theirs, strict=True)]
    low, high = stats.norm.interval(0.95, loc=sum(own) / 300, scale=stats.sem(own))
    assert (found.low, found.high) == pytest.approx((low, high))


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
