"""Figures of studies in the papers' layouts: curves with error bars, bars, heat maps and grids of images.

A point of a figure has a `row`, a `column`, the `paper`'s number, `ours()`, and by `error()` how far its error
bar goes below and above.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from forefend.checks import InputError
from forefend.runtime.files import write


def bars(points: Sequence[Any], path: Path, unit: str) -> None:
    """Draw a group of bars for each row, a bar for each column, and write `path`.svg and .png."""
    rows, columns = _names(points)
    figure = new_figure(max(6.0, 0.22 * len(rows) * len(columns) + 2), 4)
    axis = figure.subplots()
    width = 0.8 / len(columns)
    for number, column in enumerate(columns):
        own = {point.row: point for point in points if point.column == column}
        heights = [_value(own[row].ours()) if row in own else 0.0 for row in rows]
        errors = list(zip(*(own[row].error() if row in own else (0.0, 0.0) for row in rows), strict=True))
        places = [place + number * width for place in range(len(rows))]
        axis.bar(
            places,
            heights,
            width,
            yerr=errors if any(map(any, errors)) else None,
            error_kw={"alpha": 0.6},
            label=column,
        )
    axis.set_xticks([place + 0.4 - width / 2 for place in range(len(rows))], rows, rotation=45, ha="right")
    axis.set_ylabel(unit)
    axis.grid(alpha=0.3, axis="y")
    figure.legend(fontsize="small", loc="outside right upper")
    _write(figure, path)


def curves(points: Sequence[Any], path: Path, unit: str) -> None:
    """Draw a curve for each row over the columns: ours solid with error bars, the paper's dashed."""
    rows, columns = _names(points)
    figure = new_figure(9, 4.5)
    axis = figure.subplots()
    at = {(point.row, point.column): point for point in points}
    for number, row in enumerate(rows):
        own = [(place, at[row, column]) for place, column in enumerate(columns) if (row, column) in at]
        ours = [(place, point) for place, point in own if point.ours() is not None]
        if ours:
            heights, errors = [p.ours() for _, p in ours], list(zip(*(p.error() for _, p in ours), strict=True))
            axis.errorbar([x for x, _ in ours], heights, errors, color=f"C{number}", marker="o", capsize=3, label=row)
        told = [(place, point.paper) for place, point in own if isinstance(point.paper, int | float)]
        if told:
            axis.plot(*zip(*told, strict=True), "--", color=f"C{number}", alpha=0.6, label=f"{row}, paper")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_ylabel(unit)
    axis.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside right upper")
    _write(figure, path)


def heat_map(points: Sequence[Any], path: Path, unit: str) -> None:
    """Draw rows by columns with the numbers; colors run from the least to the most in each column."""
    rows, columns = _names(points)
    figure = new_figure(1.2 * len(columns) + 3, 0.32 * len(rows) + 1.5)
    axis = figure.subplots()
    at = {(point.row, point.column): point.ours() for point in points}
    table = [[_value(at.get((row, column))) for column in columns] for row in rows]
    limits = [(min(column), max(column)) for column in zip(*table, strict=True)]
    shares = [[(v - low) / (high - low or 1) for v, (low, high) in zip(row, limits, strict=True)] for row in table]
    axis.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for line, row in enumerate(table):
        for place, value in enumerate(row):
            color = "black" if shares[line][place] > 0.6 else "white"
            axis.text(place, line, f"{value:.1f}", ha="center", va="center", color=color, fontsize="small")
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    above = axis.secondary_xaxis("top")
    above.set_xticks(range(len(columns)), [f"{low:.1f}–{high:.1f}" for low, high in limits], fontsize="small")
    above.set_xlabel(f"{unit}: least and most of each column", fontsize="small")
    _write(figure, path)


def grid(rows: Mapping[str, Tensor], path: Path) -> None:
    """Draw a row of images for each title.

    Args:
        rows: images `(B, C, H, W)` in [0, 1], by title; the same number in each row.
        path: the file to write, without its ending.
    """
    count = max(len(images) for images in rows.values())
    figure = new_figure(0.8 * count + 2, 0.8 * len(rows) + 0.3)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for (title, images), line in zip(rows.items(), axes, strict=True):
        for image, axis in zip(images, line, strict=True):
            show(axis, image)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize="small")
    _write(figure, path)


def show(axis: Any, image: Tensor) -> None:
    """Show one image without ticks; a single channel in gray."""
    pixels = image.detach().cpu().permute(1, 2, 0).numpy()
    axis.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # unlike pyplot it changes no state of the caller
    except ImportError:
        raise InputError("Plots require matplotlib: pip install 'forefend[report]'.") from None
    return Figure(figsize=(width, height), layout="constrained")


def _names(points: Sequence[Any]) -> tuple[list[str], list[str]]:
    return list(dict.fromkeys(p.row for p in points)), list(dict.fromkeys(p.column for p in points))


def _value(value: float | None) -> float:
    return 0.0 if value is None else value


def _write(figure: Any, path: Path) -> None:
    for ending in ("svg", "png"):
        content = io.BytesIO()
        figure.savefig(content, format=ending, dpi=110)
        write(path.with_suffix(f".{ending}"), content.getvalue())
