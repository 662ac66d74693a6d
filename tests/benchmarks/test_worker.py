"""The worker: answers that do not mix with the output of libraries."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from benchmarks.speed.interleaving import BenchmarkError, BenchmarkProcess
from benchmarks.speed.results import Point

PROGRAM = """
import os
from benchmarks.speed.worker import serve
made = []
def setup(case):
    made.append(case)
    if case == "broken":
        raise ValueError("it is broken")
    def work():
        print("a library prints")
        os.write(1, b"so does its C code")
        return {"seconds": 2.0, "made": list(made)}
    return work
serve({("attack", "ours"): setup, ("memory", "ours"): setup}, {"torch": "?"})
"""


@pytest.fixture
def process() -> Iterator[BenchmarkProcess]:
    started = BenchmarkProcess([sys.executable, "-c", PROGRAM], {})
    yield started
    started.close()


def test_serve_another_benchmark_frees_the_work(process: BenchmarkProcess) -> None:
    a, b, other = Point("attack", "a", "ours"), Point("attack", "b", "ours"), Point("memory", "c", "ours")
    assert process.about == {"torch": "?"}
    assert process.measure(a) == {}
    assert process.measure(b) == {}
    assert process.measure(a) == {"seconds": 2.0, "made": ["a", "b"]}
    assert process.measure(other) == {}
    assert process.measure(a) == {}  # set up again
    assert process.measure(a)["made"] == ["a", "b", "c", "a"]


def test_serve_failure_is_an_answer(process: BenchmarkProcess) -> None:
    with pytest.raises(BenchmarkError, match="ValueError: it is broken"):
        process.measure(Point("attack", "broken", "ours"))
    with pytest.raises(BenchmarkError, match="KeyError"):
        process.measure(Point("attack", "a", "nobody"))
    assert process.measure(Point("attack", "a", "ours")) == {}
