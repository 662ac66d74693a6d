"""The order of rounds, and processes that answer, fail and end."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks.speed.interleaving import BenchmarkError, BenchmarkProcess, interleaved
from benchmarks.speed.results import Outcome, Point

A, B, C = (Point("attack", "PGD", name) for name in "abc")


def test_interleaved_each_round_begins_with_another_point() -> None:
    measured: list[str] = []

    def measure(point: Point) -> Outcome:
        measured.append(point.implementation)
        return {"seconds": float(len(measured))}

    found, failed = interleaved([A, B, C], measure, 4)
    assert "".join(measured) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert [outcome["seconds"] for outcome in found[B]] == [5, 7, 12, 14]
    assert failed == {}


def test_interleaved_point_that_fails_is_left_out() -> None:
    def measure(point: Point) -> Outcome:
        if point == B:
            raise BenchmarkError("no such library")
        return {"seconds": 1.0}

    found, failed = interleaved([A, B, C], measure, 2)
    assert failed == {B: "no such library"}
    assert {point: len(outcomes) for point, outcomes in found.items()} == {A: 2, C: 2}


def test_interleaved_without_points_is_empty() -> None:
    assert interleaved([], lambda point: {}, 3) == ({}, {})


ECHO = """
import json, os, sys
print(json.dumps({"threads": os.environ["OMP_NUM_THREADS"], "given": os.environ["GIVEN"]}), flush=True)
for line in sys.stdin:
    case = json.loads(line)["case"]
    if case == "die":
        sys.exit("the last line")
    print(json.dumps({"error": "bad case"} if case == "bad" else {"seconds": 1.5, "case": case}), flush=True)
"""


def process(program: str = ECHO) -> BenchmarkProcess:
    return BenchmarkProcess([sys.executable, "-c", program], {"GIVEN": "yes"})


def test_process_answers_after_an_error() -> None:
    echo = process()
    assert echo.about == {"threads": "1", "given": "yes"}
    with pytest.raises(BenchmarkError, match="bad case"):
        echo.measure(Point("attack", "bad", "ours"))
    assert echo.measure(Point("attack", "PGD-20", "ours")) == {"seconds": 1.5, "case": "PGD-20"}
    echo.close()


def test_process_that_ends_reports_its_last_error() -> None:
    echo = process()
    with pytest.raises(BenchmarkError, match="the last line"):
        echo.measure(Point("attack", "die", "ours"))
    echo.close()


def test_process_that_does_not_start_reports_why() -> None:
    with pytest.raises(BenchmarkError, match="No module named 'no_such_library'"):
        process("import no_such_library")
    with pytest.raises(BenchmarkError, match="without a message"):
        process("")


def test_close_ends_the_process() -> None:
    echo = process("import time; print('{}', flush=True); time.sleep(60)")
    began = time.monotonic()
    echo.close()
    assert time.monotonic() - began < 30
    assert echo._process.poll() is not None
