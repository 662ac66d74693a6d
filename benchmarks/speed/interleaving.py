"""Processes that measure on request, and rounds in which they take turns. No torch here.

Each implementation has a process that keeps its networks in memory. Requests and answers are lines of JSON. The
processes take turns, so that a quiet minute of a shared machine favors none of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.speed.results import Outcome, Point


class BenchmarkError(RuntimeError):
    """The process of an implementation did not start, ended, or failed; the message says why."""


class BenchmarkProcess:
    """A process that measures on request.

    Args:
        command: starts the process, which must answer like `benchmarks.speed.worker`.
        environment: variables in addition to those of this process.

    Raises:
        BenchmarkError: the process did not start.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self.about: Outcome = self._answer()
        except BenchmarkError:
            self.close()
            raise

    def measure(self, point: Point) -> Outcome:
        """Run the work of a point once; the first call for a point only sets it up.

        Raises:
            BenchmarkError: the work failed, or the process ended.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its last line of errors says why
            print(json.dumps(asdict(point)), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Outcome:
        assert self._process.stdout is not None
        received = self._process.stdout.readline()
        if not received:
            _, errors = self._process.communicate()
            raise BenchmarkError((errors.strip().splitlines() or ["the process ended without a message"])[-1])
        answer: dict[str, Any] = json.loads(received)
        if "error" in answer:
            raise BenchmarkError(answer["error"])
        return answer


def interleaved(
    points: Sequence[Point], measure: Callable[[Point], Outcome], rounds: int
) -> tuple[dict[Point, list[Outcome]], dict[Point, str]]:
    """Set up every point, then measure all of them in turn; each round begins with another point.

    Args:
        points: what to measure.
        measure: measures one point once.
        rounds: how often each point is measured.

    Returns:
        The outcomes of each point, and the error of each point that failed; such a point is not measured again.
    """
    failed: dict[Point, str] = {}
    found: dict[Point, list[Outcome]] = {point: [] for point in points}
    for number in range(rounds + 1):  # the first round sets up
        first = max(0, number - 1) % max(1, len(points))
        for point in [*points[first:], *points[:first]]:
            if point in failed:
                continue
            try:
                answer = measure(point)
            except BenchmarkError as error:
                failed[point] = str(error)
                continue
            if number:
                found[point].append(answer)
    return {point: outcomes for point, outcomes in found.items() if point not in failed}, failed
