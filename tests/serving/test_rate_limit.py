"""Token buckets, with a clock of the test."""

from __future__ import annotations

import re

import pytest

from forefend.serving import rate_limit
from forefend.serving.limits import Limits
from forefend.serving.rate_limit import RateLimit


def test_bucket_empties_and_fills_at_the_rate() -> None:
    now = [0.0]
    limit = RateLimit(2, lambda: now[0])
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 0.5]
    assert limit.wait("b") == 0  # each client has its own
    now[0] = 0.25
    assert limit.wait("a") == pytest.approx(0.25)
    now[0] = 0.5
    assert [limit.wait("a"), limit.wait("a")] == [0, 0.5]
    now[0] = 100.0
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 0.5]  # no more than a second's requests are saved


def test_rate_below_one_allows_single_requests() -> None:
    now = [0.0]
    limit = RateLimit(0.1, lambda: now[0])
    assert [limit.wait("a"), limit.wait("a")] == [0, 10]
    now[0] = 10
    assert limit.wait("a") == 0


def test_clients_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_CLIENTS", 3)
    limit = RateLimit(1, lambda: 0.0)
    for name in "abcd":
        limit.wait(name)
    assert len(limit._buckets) == 3
    assert limit.wait("d") > 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("most_bytes", "--max-bytes (most_bytes)"),
        ("most_images", "--max-batch (most_images)"),
        ("rate", "rate"),
        ("seconds", "seconds"),
    ],
)
def test_limit_out_of_range_is_refused_by_its_name(name: str, told: str) -> None:
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"^{re.escape(told)} is {value}, expected "):
            Limits(**{name: value})
