"""Rounds: who is asked when, and processes that answer, fail and die."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks.speed.interleaving import BenchmarkError, BenchmarkProcess, interleaved
from benchmarks.speed.results import Outcome, Point

A, B, C = (Point("attack", "PGD", name) for name in "abc")


def test_points_take_turns_and_each_round_begins_with_another() -> None:
    asked: list[str] = []

    def ask(point: Point) -> Outcome:
        asked.append(point.subject)
        return {"seconds": float(len(asked))}

    found, failed = interleaved([A, B, C], ask, 4)
    assert "".join(asked) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert [outcome["seconds"] for outcome in found[B]] == [5, 7, 12, 14]
    assert failed == {}


def test_a_point_that_cannot_be_set_up_is_left_out_and_says_why() -> None:
    def ask(point: Point) -> Outcome:
        if point == B:
            raise BenchmarkError("no such library")
        return {"seconds": 1.0}

    found, failed = interleaved([A, B, C], ask, 2)
    assert failed == {B: "no such library"}
    assert {point: len(outcomes) for point, outcomes in found.items()} == {A: 2, C: 2}


def test_nothing_to_ask_is_nothing() -> None:
    assert interleaved([], lambda point: {}, 3) == ({}, {})


ECHO = """
import json, os, sys
print(json.dumps({"threads": os.environ["OMP_NUM_THREADS"], "given": os.environ["GIVEN"]}), flush=True)
for line in sys.stdin:
    case = json.loads(line)["case"]
    if case == "die":
        sys.exit("the last word")
    print(json.dumps({"error": "bad case"} if case == "bad" else {"seconds": 1.5, "case": case}), flush=True)
"""


def subject(program: str = ECHO) -> BenchmarkProcess:
    return BenchmarkProcess([sys.executable, "-c", program], {"GIVEN": "yes"})


def test_a_subject_answers_and_goes_on_after_an_error() -> None:
    echo = subject()
    assert echo.about == {"threads": "1", "given": "yes"}
    with pytest.raises(BenchmarkError, match="bad case"):
        echo.ask(Point("attack", "bad", "ours"))
    assert echo.ask(Point("attack", "PGD-20", "ours")) == {"seconds": 1.5, "case": "PGD-20"}
    echo.close()


def test_a_subject_that_dies_leaves_its_last_word() -> None:
    echo = subject()
    with pytest.raises(BenchmarkError, match="the last word"):
        echo.ask(Point("attack", "die", "ours"))
    echo.close()


def test_a_subject_that_does_not_start_says_why() -> None:
    with pytest.raises(BenchmarkError, match="No module named 'no_such_library'"):
        subject("import no_such_library")
    with pytest.raises(BenchmarkError, match="without a word"):
        subject("")


def test_closing_ends_the_process() -> None:
    echo = subject("import time; print('{}', flush=True); time.sleep(60)")
    began = time.monotonic()
    echo.close()
    assert time.monotonic() - began < 30
    assert echo._process.poll() is not None
