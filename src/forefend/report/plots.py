"""Plot the images of a defense, and accuracy against radius."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from forefend.evaluation.results import CLEAN, WORST, Result
from forefend.report.figures import new_figure, show
from forefend.runtime.files import write


def picture(path: Path, x: Tensor, x_out: Tensor, results: Sequence[Result]) -> None:
    """Plot clean images, `g(x)` and `|x − g(x)|` above accuracy against radius, and write a PNG.

    Args:
        path: the file to write.
        x: clean images, `(B, C, H, W)` in [0, 1]; the first ten are shown.
        x_out: output of the defense for them, the same shape.
        results: of an evaluation; its radii make the curves.

    Raises:
        InputError: matplotlib is not installed.
    """
    count = min(10, len(x))
    figure = new_figure(10, 7.5)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    rows = {"x": x, "g(x)": x_out.clamp(0, 1), "|x − g(x)|": (x - x_out).abs().clamp(0, 1)}
    axes = above.subplots(3, count, squeeze=False)
    for (name, row), line in zip(rows.items(), axes, strict=True):
        for image, axis in zip(row[:count], line, strict=True):
            show(axis, image)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    _plot_curves(below.subplots(), results)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    write(path, png.getvalue())


def _plot_curves(axis: Any, results: Sequence[Result]) -> None:
    """Plot a curve with its 95% interval for each classifier: dashed alone, solid with the defense."""
    names = list(dict.fromkeys(r.classifier for r in results))
    for (classifier, defended), curve in _curves(results).items():
        curve = sorted(curve, key=lambda r: r.radius)
        color, style = f"C{names.index(classifier)}", "-" if defended else "--"
        role = "guide" if curve[0].seen else "unseen"
        label = f"{classifier} ({role}{', defended' if defended else ''})"
        radii = [r.radius for r in curve]
        axis.plot(radii, [100 * r.accuracy for r in curve], style, color=color, marker="o", label=label)
        axis.fill_between(radii, [100 * r.low for r in curve], [100 * r.high for r in curve], color=color, alpha=0.12)
    norm = next((r.norm for r in results if r.norm), "")
    axis.set(xlabel=f"{norm} radius, pixels in [0, 1]", ylabel="accuracy, % (95% interval)", ylim=(-2, 102))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def _curves(results: Sequence[Result]) -> dict[tuple[str, bool], list[Result]]:
    """Return the results of each curve: clean, and the worst attack at each radius."""
    several = any(r.attack == WORST for r in results)
    curves: dict[tuple[str, bool], list[Result]] = {}
    for result in results:
        if result.attack in (CLEAN, WORST) or not several:
            curves.setdefault((result.classifier, result.defended), []).append(result)
    return curves
