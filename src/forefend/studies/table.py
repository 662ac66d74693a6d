"""Tables and figures as lists of cells, and what was found for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from forefend.checks import choose
from forefend.studies.costs import Cost, Price
from forefend.studies.measurements import Count, Measurement, Outputs
from forefend.studies.setting import SCALES
from forefend.studies.tasks import Place, Task


def accuracy(counts: Sequence[Count]) -> float:
    """The accuracy in percent."""
    return counts[0].accuracy()


def difference(counts: Sequence[Count]) -> float:
    """The first accuracy less the second, in points."""
    return counts[0].accuracy() - counts[1].accuracy()


def fooling_rate(counts: Sequence[Count]) -> float:
    """The share in percent of the images that are right when clean (second count) and wrong when attacked (first)."""
    attacked, clean = counts[:2]
    return 100 * (clean.right - attacked.right) / max(1, clean.right)


def mean_accuracy(counts: Sequence[Count]) -> float:
    """The mean of the accuracies in percent."""
    return fmean(count.accuracy() for count in counts)


def lowest_accuracy(counts: Sequence[Count]) -> float:
    """The lowest of the accuracies in percent."""
    return min(count.accuracy() for count in counts)


def moved_by_attack(counts: Sequence[Count]) -> float:
    """The mean |Δ| of attacked images, in 8-bit pixel values; NaN where it was not measured."""
    return 255 * counts[0].moved[0] if counts[0].moved else nan


def moved_behind_defense(counts: Sequence[Count]) -> float:
    """The mean |Δ| from clean images to what the defense makes of attacked ones, likewise."""
    return 255 * counts[0].moved[1] if counts[0].moved else nan


def milliseconds(prices: Sequence[Price]) -> float:
    """The time of one image that a defense adds."""
    return prices[0].milliseconds


def parameters(prices: Sequence[Price]) -> float:
    """The parameters that a defense adds."""
    return prices[0].parameters


def gradients(prices: Sequence[Price]) -> float:
    """The gradients of one image that its training computed, in thousands."""
    return prices[0].gradients / 1000


VALUES: dict[str, Callable[[Sequence[Any]], float]] = {
    "accuracy": accuracy,
    "difference": difference,
    "fooling rate": fooling_rate,
    "gradients": gradients,
    "lowest accuracy": lowest_accuracy,
    "mean accuracy": mean_accuracy,
    "milliseconds": milliseconds,
    "moved by attack": moved_by_attack,
    "moved behind defense": moved_behind_defense,
    "parameters": parameters,
}
OVER_SEEDS: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "max": max, "min": min}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Args:
        row: its row.
        column: its column.
        paper: the paper's number in the table's unit, or its text; None where it states none.
        runs: for each seed, the measurements that the value is computed from; none for a number quoted from the paper.
        value: a key of `VALUES`, which computes the value of one seed.
        over: a key of `OVER_SEEDS`, which combines them.
        differs: how this cell differs from the paper's setting, in words; empty for the same.
    """

    row: str
    column: str
    paper: float | str | None = None
    runs: Sequence[Sequence[Measurement]] | Sequence[Sequence[Cost]] = ()
    value: str = "accuracy"
    over: str = "mean"
    differs: str = ""

    @property
    def quoted(self) -> bool:
        """Whether the number is the paper's alone."""
        return not self.runs

    @property
    def name(self) -> str:
        """The text that `--only` selects by."""
        return f"{self.row} / {self.column}"

    def tasks(self) -> list[Task]:
        """The measurements of all seeds."""
        return [task for run in self.runs for task in run]


@dataclass(frozen=True)
class Outcome:
    """What was found for a cell.

    Args:
        row: of the cell.
        column: of the cell.
        paper: the paper's number or text.
        quoted: whether it is the paper's alone.
        value: how each value is computed from counts.
        over: how values of several seeds are combined.
        differs: how the cell differs from the paper's setting.
        counts: for each seed that is finished, the counts; of a cost, its prices.
        failed: why a measurement failed; empty if none did.
    """

    row: str
    column: str
    paper: float | str | None
    quoted: bool
    value: str
    over: str
    differs: str
    counts: Sequence[Sequence[Count | Price]] = ()
    failed: str = ""

    def values(self) -> list[float]:
        """The value of each seed."""
        return [VALUES[self.value](counts) for counts in self.counts]

    def ours(self) -> float | None:
        """The value over all seeds; None where there is none."""
        return OVER_SEEDS[self.over](self.values()) if self.counts else None

    def spread(self) -> float | None:
        """The standard deviation over seeds; None below two."""
        return stdev(self.values()) if len(self.counts) > 1 else None

    def error(self) -> tuple[float, float]:
        """How far the error bar goes below and above: the standard deviation, or the 95% interval of one accuracy."""
        counts = [count for run in self.counts for count in run if isinstance(count, Count)]
        if "accuracy" in self.value and len(counts) == 1:
            (low, high), own = counts[0].interval(), counts[0].accuracy()
            return own - low, high - own
        spread = self.spread() or 0.0
        return spread, spread

    def n(self) -> int | None:
        """The number of verdicts of one seed; None without verdicts."""
        first = self.counts[0][0] if self.counts else None
        return first.n if isinstance(first, Count) else None

    def gap(self) -> float | None:
        """Ours less the paper's."""
        ours = self.ours()
        return None if ours is None or not isinstance(self.paper, int | float) else ours - self.paper


def outcome(cell: Cell, place: Place, failures: Mapping[str, str]) -> Outcome:
    """Read what was found for a cell.

    Args:
        cell: the cell.
        place: where its tasks keep their results.
        failures: by key of a task, why it failed.
    """
    reasons = [failures[task.key] for task in cell.tasks() if task.key in failures]
    finished = [run for run in cell.runs if all(task.seconds(place) is not None for task in run)]
    counts = [[task.count(place) for task in run] for run in finished]
    own = {name: getattr(cell, name) for name in ("row", "column", "paper", "quoted", "value", "over", "differs")}
    return Outcome(**own, counts=counts, failed=reasons[0] if reasons else "")


@dataclass(frozen=True)
class Picture:
    """Images of a figure: a row for each task.

    Args:
        rows: by title, the task that computes them.
        kinds: which images of each, of x, x_adv, g(x), g(x_adv) and the absolute difference of two, as `x − g(x)`.
    """

    rows: Mapping[str, Outputs]
    kinds: Sequence[str]


Drawing = Callable[[Sequence[Outcome], Path, str], None]  # of points, the file, and the unit


@dataclass(frozen=True)
class Table:
    """One table or figure of a paper.

    Args:
        name: such as `table-5`.
        title: what it shows.
        place: where it is in the paper.
        cells: by scale, its cells, made on first use.
        unit: of its numbers.
        note: what a reader must know about it.
        draw: draws the figure; None for a table.
        picture: by scale, the images of the figure.
    """

    name: str
    title: str
    place: str
    cells: Mapping[str, Callable[[], Sequence[Cell]]] = field(default_factory=dict)
    unit: str = "accuracy in %"
    note: str = ""
    draw: Drawing | None = None
    picture: Mapping[str, Callable[[], Picture]] = field(default_factory=dict)

    def scales(self) -> list[str]:
        """The scales that it has, smallest first."""
        return [scale for scale in SCALES if scale in self.cells or scale in self.picture]

    def cells_at(self, scale: str) -> list[Cell]:
        """The cells at a scale; none for a picture."""
        choose(scale, {name: name for name in self.scales()}, f"scale of {self.name}")
        return list(self.cells[scale]()) if scale in self.cells else []

    def picture_at(self, scale: str) -> Picture | None:
        """The picture at a scale, if there is one."""
        return self.picture[scale]() if scale in self.picture else None
