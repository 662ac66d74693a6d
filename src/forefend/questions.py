"""Questions: the table of what `forefend bench` can measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from .bench import attack, early_exit, growth, memory, recipes, roofline, training, verdict
from .ratios import Figure, Maker, Measured, Point


class Question(Protocol):
    """One of the bench's files."""

    @property
    def SUBJECTS(self) -> Mapping[str, Maker]:  # noqa: N802 (a constant of each file)
        """Who of ours sets up which work."""

    def points(self, quick: bool) -> Sequence[Point]:
        """What to measure."""

    def figures(self, measured: Measured) -> Iterable[Figure]:
        """The ratios that answer."""


QUESTIONS: dict[str, Question] = {
    "attack": attack,
    "early exit": early_exit,
    "verdict": verdict,
    "training": training,
    "roofline": roofline,
    "growth": growth,
    "memory": memory,
    "recipes": recipes,
}
