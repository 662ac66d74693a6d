"""The table of benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from benchmarks.speed.benchmarks import (
    attacks,
    early_stopping,
    memory,
    recipes,
    roofline,
    scaling,
    training_step,
)
from benchmarks.speed.results import Figure, Measured, Point, Setup


class Benchmark(Protocol):
    """One file of `benchmarks/speed/benchmarks`."""

    @property
    def IMPLEMENTATIONS(self) -> Mapping[str, Setup]:  # noqa: N802 (a constant of each file)
        """Our own implementations, each with the function that sets it up."""

    def points(self, quick: bool) -> Sequence[Point]:
        """Return what to measure."""

    def figures(self, measured: Measured) -> Iterable[Figure]:
        """Yield the ratios."""


BENCHMARKS: dict[str, Benchmark] = {
    "attack": attacks,
    "early exit": early_stopping,
    "training": training_step,
    "roofline": roofline,
    "growth": scaling,
    "memory": memory,
    "recipes": recipes,
}
