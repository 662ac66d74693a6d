"""Figures: what a defense does to images, and accuracy against radius."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from forefend.checks import InputError
from forefend.evaluation.results import CLEAN, WORST, Result
from forefend.runtime.files import write


def picture(path: Path, x: Tensor, x_out: Tensor, cells: Sequence[Result]) -> None:
    """Clean images, `g(x)` and `|x − g(x)|` above, accuracy against radius below, written to `path` as PNG.

    Args:
        path: the file to write.
        x: clean images, `(B, C, H, W)` in [0, 1]; the first ten are shown.
        x_out: the defense's output for them, same shape.
        cells: an evaluation; its radii make the curves.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure_class = _figure_class()
    count = min(10, len(x))
    figure = figure_class(figsize=(10, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    rows = {"x": x, "g(x)": x_out.clamp(0, 1), "|x − g(x)|": (x - x_out).abs().clamp(0, 1)}
    axes = above.subplots(3, count, squeeze=False)
    for (name, row), line in zip(rows.items(), axes, strict=True):
        for image, axis in zip(row[:count], line, strict=True):
            _show(axis, image)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    _curves(below.subplots(), cells)
    _save(figure, path)


def _show(axis: Any, image: Tensor) -> None:
    """One image without ticks; a single channel in gray."""
    pixels = image.detach().cpu().permute(1, 2, 0).numpy()
    axis.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])


def _curves(axis: Any, cells: Sequence[Result]) -> None:
    """One curve with its 95% interval for each classifier: dashed alone, solid behind the defense."""
    names = list(dict.fromkeys(c.classifier for c in cells))
    for (classifier, defended), curve in _by_subject(cells).items():
        curve = sorted(curve, key=lambda c: c.radius)
        color, style = f"C{names.index(classifier)}", "-" if defended else "--"
        role = "guide" if curve[0].seen else "unseen"
        label = f"{classifier} ({role}{', defended' if defended else ''})"
        radii = [c.radius for c in curve]
        axis.plot(radii, [100 * c.accuracy for c in curve], style, color=color, marker="o", label=label)
        axis.fill_between(radii, [100 * c.low for c in curve], [100 * c.high for c in curve], color=color, alpha=0.12)
    norm = next((c.norm for c in cells if c.norm), "")
    axis.set(xlabel=f"{norm} radius, pixels in [0, 1]", ylabel="accuracy, % (95% interval)", ylim=(-2, 102))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def _by_subject(cells: Sequence[Result]) -> dict[tuple[str, bool], list[Result]]:
    """The cells of each curve: clean, and at each radius the worst attack."""
    several = any(c.attack == WORST for c in cells)
    shown = [c for c in cells if c.attack in (CLEAN, WORST) or not several]
    curves: dict[tuple[str, bool], list[Result]] = {}
    for cell in shown:
        curves.setdefault((cell.classifier, cell.defended), []).append(cell)
    return curves


def _save(figure: Any, path: Path) -> None:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    write(path, held.getvalue())


def _figure_class() -> Any:
    """Matplotlib's Figure, without touching the caller's pyplot state."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("Drawing needs matplotlib: pip install 'forefend[report]'.") from None
    return Figure
