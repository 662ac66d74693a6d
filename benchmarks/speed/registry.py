"""Questions: the table of what `forefend bench` can measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from benchmarks.speed.benchmarks import (
    attacks,
    cascade,
    early_stopping,
    memory,
    recipes,
    roofline,
    scaling,
    training_step,
)
from benchmarks.speed.results import Figure, Maker, Measured, Point


class Benchmark(Protocol):
    """One of the bench's files."""

    @property
    def SUBJECTS(self) -> Mapping[str, Maker]:  # noqa: N802 (a constant of each file)
        """Who of ours sets up which work."""

    def points(self, quick: bool) -> Sequence[Point]:
        """What to measure."""

    def figures(self, measured: Measured) -> Iterable[Figure]:
        """The ratios that answer."""


BENCHMARKS: dict[str, Benchmark] = {
    "attack": attacks,
    "early exit": early_stopping,
    "verdict": cascade,
    "training": training_step,
    "roofline": roofline,
    "growth": scaling,
    "memory": memory,
    "recipes": recipes,
}
