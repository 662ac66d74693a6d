"""Results of a comparison, as text, Markdown and JSON. This module does not need torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forefend.evaluation.results import Result
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table, percent, text_table

OURS = "this defense"
HEADING = [
    *("model", "clean", "worst attack", "attacked", "classifier changed", "training GFLOP"),
    *("MFLOP an image", "ms an image (1)", "ms an image (64)", "parameters added", "KiB added"),
]


@dataclass(frozen=True)
class Price:
    """Costs of one model.

    Args:
        training_flops: operations of its training.
        forward_flops: operations of the forward pass of one image.
        ms_alone: milliseconds of one image in a batch of its own.
        ms_batched: milliseconds of one image in a batch of 64.
        parameters: parameters beyond those of the classifier.
        kilobytes: parameters and buffers beyond those of the classifier, in units of 1024 bytes.
    """

    training_flops: float
    forward_flops: float
    ms_alone: float
    ms_batched: float
    parameters: int
    kilobytes: float


@dataclass(frozen=True)
class Row:
    """Results of one model.

    Args:
        name: name in the table.
        attacked: how it was attacked, in words.
        clean: accuracy without an attack.
        worst: accuracy under the worst attack on each image.
        price: its costs.
        changed: whether the weights of the classifier were changed.
    """

    name: str
    attacked: str
    clean: Result
    worst: Result
    price: Price
    changed: bool

    @property
    def short(self) -> str:
        """The name without its settings."""
        return self.name.partition(" (")[0]


@dataclass(frozen=True)
class Comparison:
    """A defense and its baselines; `print(comparison)` shows the table and the result.

    Args:
        rows: one row for each model.
        about: caption of the table.
        settings: what was compared, as JSON values.
    """

    rows: Sequence[Row]
    about: str
    settings: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """The most robust model, in one sentence."""
        return verdict(self.rows)

    def __str__(self) -> str:
        return f"{text_table(HEADING, map(_cells, self.rows))}\n{self.about}\n\n{self.verdict}"

    def to_markdown(self) -> str:
        """Return the table, its caption and the verdict in Markdown."""
        return f"{markdown_table(HEADING, map(_cells, self.rows))}\n\n{self.about}\n\n{self.verdict}\n"

    def to_json(self) -> dict[str, Any]:
        """Return settings, rows and verdict as JSON values."""
        return {**self.settings, "rows": [asdict(row) for row in self.rows], "verdict": self.verdict}

    def save(self, folder: Path) -> None:
        """Write `compare.json` and `compare.md`."""
        files.write_versioned(folder / "compare.json", self.to_json() | {"about": files.provenance()})
        files.write(folder / "compare.md", self.to_markdown().encode())


def verdict(rows: Sequence[Row], ours: str = OURS) -> str:
    """Return one sentence about which model is the most robust.

    A model wins if its 95 % interval overlaps with no other. This is conservative, as all models are
    attacked on the same images.

    Args:
        rows: at least two models.
        ours: name of the defense that is compared.
    """
    ranked = sorted(rows, key=lambda row: -row.worst.accuracy)
    best = ranked[0]
    leaders = [row for row in ranked if row.worst.high >= best.worst.low]
    our = next(row for row in rows if row.name == ours)
    if len(leaders) == 1:
        other = ranked[1] if best is our else our
        return f"Under attack {best.short} wins: {_robust(best)} against {_robust(other)} of {other.short}."
    *names, last = (f"{row.short} ({_robust(row)})" for row in leaders)
    below = "" if our in leaders else f"; {ours} ({_robust(our)}) is below"
    return f"Under attack there is no clear winner, as the intervals overlap: {', '.join(names)} and {last}{below}."


def _cells(row: Row) -> list[str]:
    clean, worst, price = row.clean, row.worst, row.price
    return [
        row.name,
        percent(clean.accuracy, clean.low, clean.high, clean.n),
        percent(worst.accuracy, worst.low, worst.high, worst.n),
        row.attacked,
        "yes" if row.changed else "no",
        f"{price.training_flops / 1e9:.1f}",
        f"{price.forward_flops / 1e6:.2f}",
        f"{price.ms_alone:.2f}",
        f"{price.ms_batched:.3f}",
        str(price.parameters),
        f"{price.kilobytes:.0f}",
    ]


def _robust(row: Row) -> str:
    return f"{100 * row.worst.accuracy:.1f} %"
