"""Worker: the other end of the line; what libraries print does not come between the answers."""

from __future__ import annotations

import sys

import pytest

from benchmarks.speed.interleaving import BenchmarkError, BenchmarkProcess
from benchmarks.speed.results import Point

PROGRAM = """
import os
from forefend.worker import serve
made = []
def maker(case):
    made.append(case)
    if case == "broken":
        raise ValueError("it is broken")
    def work():
        print("a library greets")
        os.write(1, b"so does its C code")
        return {"seconds": 2.0, "made": list(made)}
    return work
serve({("attack", "ours"): maker, ("memory", "ours"): maker}, {"torch": "?"})
"""


@pytest.fixture
def subject() -> BenchmarkProcess:
    return BenchmarkProcess([sys.executable, "-c", PROGRAM], {})


def test_work_is_set_up_once_and_forgotten_when_another_question_begins(subject: BenchmarkProcess) -> None:
    a, b, other = Point("attack", "a", "ours"), Point("attack", "b", "ours"), Point("memory", "c", "ours")
    assert subject.about == {"torch": "?"}
    assert subject.ask(a) == {}
    assert subject.ask(b) == {}
    assert subject.ask(a) == {"seconds": 2.0, "made": ["a", "b"]}
    assert subject.ask(other) == {}
    assert subject.ask(a) == {}  # set up anew
    assert subject.ask(a)["made"] == ["a", "b", "c", "a"]
    subject.close()


def test_a_failure_is_an_answer(subject: BenchmarkProcess) -> None:
    with pytest.raises(BenchmarkError, match="ValueError: it is broken"):
        subject.ask(Point("attack", "broken", "ours"))
    with pytest.raises(BenchmarkError, match="KeyError"):
        subject.ask(Point("attack", "a", "nobody"))
    assert subject.ask(Point("attack", "a", "ours")) == {}
    subject.close()
