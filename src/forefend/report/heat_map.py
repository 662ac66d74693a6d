"""Plot a transfer matrix as a heat map: classifiers behind a defense, and the sources of adversarial images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from forefend.checks import import_extra
from forefend.evaluation.transferability.matrix import Cell, TransferMatrix
from forefend.runtime.files import write


def heat_map(matrix: TransferMatrix, folder: Path) -> None:
    """Write `transfer.png` and `transfer.svg`: a panel for each attack, a row for each classifier.

    Colors and numbers are accuracies in percent; a frame marks the white-box attack.

    Args:
        matrix: what was measured.
        folder: where the files go.

    Raises:
        InputError: matplotlib is not installed.
    """
    figures = import_extra("matplotlib.figure", "A heat map", "report")
    columns = list(dict.fromkeys(cell.row[1:] for cell in matrix.cells))
    rows, panels = list(matrix.classifiers), matrix.attacks
    size = (2.5 + 0.62 * len(columns), 2.2 + len(panels) * (0.5 + 0.45 * len(rows)))
    figure: Any = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for attack, axis in zip(panels, axes, strict=True):
        found = [cell for cell in matrix.cells if cell.attack in ("", attack)]
        shares: list[list[float]] = [[float("nan")] * len(columns) for _ in rows]
        for cell in found:
            shares[rows.index(cell.classifier)][columns.index(cell.row[1:])] = 100 * cell.accuracy
        picture = axis.imshow(shares, cmap="viridis", vmin=0, vmax=100, aspect="auto")
        for cell in found:
            _write(axis, cell, columns.index(cell.row[1:]), rows.index(cell.classifier))
        axis.set_xticks(range(len(columns)), [_title(*column) for column in columns], rotation=45, ha="right")
        names = [f"{name} ({'guide' if seen else 'unseen'})" for name, seen in matrix.classifiers.items()]
        axis.set_yticks(range(len(rows)), names)
        axis.set_title(f"{attack}, {matrix.threat}", fontsize="medium")
    axes[-1].set_xlabel("images crafted on")
    figure.colorbar(picture, ax=list(axes), label=f"accuracy behind {matrix.about['defense']}, %")
    for kind, about in (("png", {}), ("svg", {"metadata": {"Date": None}})):
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=110, **about)
        write(folder / f"transfer.{kind}", drawn.getvalue())


def _write(axis: Any, cell: Cell, column: int, row: int) -> None:
    """Write the accuracy into its field; frame the white-box attack."""
    dark = cell.accuracy < 0.6
    axis.text(column, row, f"{100 * cell.accuracy:.0f}", ha="center", va="center", color="w" if dark else "k")
    if cell.white_box:
        left, bottom = column - 0.46, row - 0.46
        right, top = column + 0.46, row + 0.46
        axis.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], color="red", linewidth=1.5)


def _title(source: str, behind: str) -> str:
    if not source:
        return "clean"
    return f"{source} behind {behind}" if behind else source
