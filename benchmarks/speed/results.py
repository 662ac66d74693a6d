"""Ratios between measurements of interleaved rounds. No torch here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from forefend.checks import InputError

Outcome = Mapping[str, Any]  # what one run of the work measured, "seconds" among it; plain JSON values
Work = Callable[[], Outcome]
Setup = Callable[[str], Work]  # from the name of a case to its work, set up and run once

# Names of fields in bench.json where they differ from those in the code.
ON_DISK = {"benchmark": "question", "implementation": "subject", "target": "bar"}


@dataclass(frozen=True)
class Point:
    """One thing to measure.

    Args:
        benchmark: name of the benchmark.
        case: what is done, such as `PGD-20 on resnet20`.
        implementation: what does it, such as `ours` or `foolbox`.
    """

    benchmark: str
    case: str
    implementation: str


Measured = Mapping[Point, Sequence[Outcome]]  # the outcomes of each point, one per round, in the order of the rounds


@dataclass(frozen=True)
class Figure:
    """One ratio between two implementations.

    Args:
        benchmark: name of the benchmark.
        case: what was done.
        implementation: the faster one if the ratio is above 1.
        against: the one that it is compared with.
        unit: the quantity that was divided: seconds, bytes, gradients.
        ratio: the median over the rounds of `against` divided by `implementation`.
        low: the lower quartile.
        high: the upper quartile.
        rounds: the number of rounds.
        parity: evidence that both did the same work: robust accuracies, gradients per image, losses.
        target: the value that the ratio should reach; None where none was set.
    """

    benchmark: str
    case: str
    implementation: str
    against: str
    unit: str
    ratio: float
    low: float
    high: float
    rounds: int
    parity: dict[str, Any] = field(default_factory=dict)
    target: float | None = None

    @property
    def missed(self) -> bool:
        """Whether a target was set and not reached."""
        return self.target is not None and self.ratio < self.target

    def to_json(self) -> dict[str, Any]:
        """Return the fields as they are named in `bench.json`."""
        return {ON_DISK.get(name, name): value for name, value in asdict(self).items()} | {"missed": self.missed}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Figure:
        """Return the figure that `to_json` wrote."""
        names = {on_disk: name for name, on_disk in ON_DISK.items()}
        return cls(**{names.get(key, key): value for key, value in fields.items() if key != "missed"})


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, lower and upper quartile, interpolated between the values like numpy's percentiles.

    Raises:
        InputError: there is no value.
    """
    if not values:
        raise InputError("No round was measured: give --rounds at least 1.")
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def ratios(implementation: Sequence[Outcome], against: Sequence[Outcome], unit: str = "seconds") -> list[float]:
    """Return `against` divided by `implementation` in each round; both were measured close to each other in time."""
    return [float(b[unit]) / float(a[unit]) for a, b in zip(implementation, against, strict=True)]


def figure(
    measured: Measured,
    point: Point,
    against: Point,
    *,
    target: float | None = None,
    unit: str = "seconds",
    **parity: Any,
) -> Figure:
    """Compute the ratio of two measured points.

    Args:
        measured: the rounds of every point.
        point: the one in the denominator.
        against: the one in the numerator.
        target: the value that the ratio should reach.
        unit: which number of the outcomes is compared.
        parity: evidence that both did the same work.
    """
    found = ratios(measured[point], measured[against], unit)
    middle, low, high = quartiles(found)
    case = point.case if point.case == against.case else f"{point.case} / {against.case}"
    names = (point.benchmark, case, point.implementation, against.implementation)
    return Figure(*names, unit, middle, low, high, len(found), parity, target)


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Return slope, intercept and R² of the least-squares line; R² is 1 where y is constant."""
    slope, intercept = statistics.linear_regression(x, y)
    mean = statistics.fmean(y)
    total = sum((b - mean) ** 2 for b in y)
    residual = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
    return slope, intercept, 1 - residual / total if total else 1.0


def nearest(measured: Measured, point: Point, others: Iterable[Point]) -> Point | None:
    """Return the other point with the smallest ratio in seconds; None where there is no other point."""
    return min(others, key=lambda other: figure(measured, point, other).ratio, default=None)
