"""Rounds: subjects in processes of their own, each asked in turn, again and again, so that no one has the quiet minute.

A subject's process holds its networks and waits; what it is asked and what it answers are lines of JSON. No torch here.
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
    """A subject's process could not be started, died, or could not do what it was asked; the message says why."""


class BenchmarkProcess:
    """A process that does measured work when it is asked to.

    Args:
        command: what starts it; it must speak as `benchmarks.speed.worker` does.
        environment: variables that are added to this process's own.

    Raises:
        SubjectError: it did not start.
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

    def ask(self, point: Point) -> Outcome:
        """Have the point's work done once; the first time it is only set up.

        Raises:
            SubjectError: the work failed, or the process died.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died before; its last words tell why
            print(json.dumps(asdict(point)), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Let the process end."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Outcome:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            _, last = self._process.communicate()
            raise BenchmarkError((last.strip().splitlines() or ["it ended without a word"])[-1])
        answer: dict[str, Any] = json.loads(said)
        if "error" in answer:
            raise BenchmarkError(answer["error"])
        return answer


def interleaved(
    points: Sequence[Point], ask: Callable[[Point], Outcome], rounds: int
) -> tuple[dict[Point, list[Outcome]], dict[Point, str]]:
    """Have every point set up, then ask all in turn, `rounds` times; each round begins with another one.

    Args:
        points: what to measure.
        ask: has one point's work done.
        rounds: how often each is measured.

    Returns:
        The outcomes of each point, and why those failed that did; a point that fails once is not asked again.
    """
    failed: dict[Point, str] = {}
    found: dict[Point, list[Outcome]] = {point: [] for point in points}
    for number in range(rounds + 1):  # the first of them sets up
        first = max(0, number - 1) % max(1, len(points))
        for point in [*points[first:], *points[:first]]:
            if point in failed:
                continue
            try:
                answer = ask(point)
            except BenchmarkError as error:
                failed[point] = str(error)
                continue
            if number:
                found[point].append(answer)
    return {point: outcomes for point, outcomes in found.items() if point not in failed}, failed
