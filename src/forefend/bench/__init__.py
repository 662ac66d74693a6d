"""The bench's questions, one file each: what is measured, who does it, and which ratios answer.

Every file has `points(quick)`, what to measure; `SUBJECTS`, who of ours sets up which work; `figures(measured)`. Subjects
that a file names and does not have are peers, which live in `benchmarks/` and in environments of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..ratios import Figure, Maker, Measured, Outcome, Point
from . import attack, early_exit, growth, memory, recipes, roofline, training


class Question(Protocol):
    """One of the bench's files."""

    SUBJECTS: Mapping[str, Maker]

    def points(self, quick: bool) -> Sequence[Point]:
        """What to measure."""

    def figures(self, measured: Measured) -> Sequence[Figure]:
        """The ratios that answer."""


QUESTIONS: dict[str, Question] = {
    "attack": attack,
    "early exit": early_exit,
    "training": training,
    "roofline": roofline,
    "growth": growth,
    "memory": memory,
    "recipes": recipes,
}

__all__ = ["QUESTIONS", "Outcome", "Question"]
