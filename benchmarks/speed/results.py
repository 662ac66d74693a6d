"""Ratios: what interleaved rounds measured, and how many times faster one subject was than another. No torch here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from forefend.checks import InputError

Outcome = Mapping[str, Any]  # what one piece of work found, "seconds" among it; plain JSON values
Work = Callable[[], Outcome]
Maker = Callable[[str], Work]  # from a case's name to the work, set up and done once


@dataclass(frozen=True)
class Point:
    """One thing that is measured.

    Args:
        question: name of the bench's question.
        case: what is done, such as `PGD-20 on resnet20`.
        subject: who does it, such as `ours` or `foolbox`.
    """

    question: str
    case: str
    subject: str


Measured = Mapping[Point, Sequence[Outcome]]  # the outcomes of each point, a round each, in the order of the rounds


@dataclass(frozen=True)
class Figure:
    """One ratio with everything it needs to be believed.

    Args:
        question: name of the bench's question.
        case: what was done.
        subject: whose advantage this is.
        against: over whom.
        unit: what was divided: CPU seconds, bytes, gradients.
        ratio: the median over the rounds of `against` over `subject`: above 1 the subject needs less.
        low: the lower quartile.
        high: the upper quartile.
        rounds: how many there were.
        parity: what shows that both did the same: robust accuracies, gradients an image, losses.
        bar: what the ratio should reach; None where nothing was promised.
    """

    question: str
    case: str
    subject: str
    against: str
    unit: str
    ratio: float
    low: float
    high: float
    rounds: int
    parity: dict[str, Any] = field(default_factory=dict)
    bar: float | None = None

    @property
    def missed(self) -> bool:
        """Whether a bar was set and not reached."""
        return self.bar is not None and self.ratio < self.bar

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"missed": self.missed}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile, interpolated between the values as numpy's percentiles are.

    Raises:
        InputError: no value.
    """
    if not values:
        raise InputError("No round was measured: give --rounds at least 1.")
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def ratios(subject: Sequence[Outcome], against: Sequence[Outcome], unit: str = "seconds") -> list[float]:
    """`against` over `subject` in each round; a round's two were measured next to each other."""
    return [float(b[unit]) / float(a[unit]) for a, b in zip(subject, against, strict=True)]


def figure(
    measured: Measured,
    subject: Point,
    against: Point,
    *,
    bar: float | None = None,
    unit: str = "seconds",
    **parity: Any,
) -> Figure:
    """The figure of two measured points.

    Args:
        measured: every point's rounds.
        subject: whose advantage is asked for.
        against: over whom.
        bar: what was promised.
        unit: which of the outcomes' numbers is compared.
        parity: what shows that both did the same.
    """
    found = ratios(measured[subject], measured[against], unit)
    middle, low, high = quartiles(found)
    case = subject.case if subject.case == against.case else f"{subject.case} / {against.case}"
    return Figure(
        subject.question, case, subject.subject, against.subject, unit, middle, low, high, len(found), parity, bar
    )


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Slope, intercept and R² of the least-squares line through the points; R² is 1 where y does not vary."""
    slope, intercept = statistics.linear_regression(x, y)
    mean = statistics.fmean(y)
    spread = sum((b - mean) ** 2 for b in y)
    left = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
    return slope, intercept, 1 - left / spread if spread else 1.0


def nearest(measured: Measured, subject: Point, points: Iterable[Point]) -> Point | None:
    """The point over which the subject's advantage in seconds is smallest; None where there is no point."""
    return min(points, key=lambda point: figure(measured, subject, point).ratio, default=None)
