"""Drawings for pages, as inline SVG whose colors are those of the page, in light and in dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from forefend.checks import import_extra

INK, SOFT, LINE, CARD = "#010101", "#020202", "#030303", "#040404"  # stand for variables of the style sheet
_VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", CARD: "--card"}
SERIES = 8
_VARIABLES |= {f"#0500{number:02x}": f"--series-{number}" for number in range(SERIES)}
Point = tuple[float, float, float, float]  # place, value, low, high


def series(number: int) -> str:
    """Return the color of a series, which the page replaces by one of its own."""
    return f"#0500{number % SERIES:02x}"


def curves(lines: Mapping[str, Sequence[Point]], x_label: str, y_label: str, dashed: Sequence[str] = ()) -> str:
    """Return curves with bands of their intervals, in percent.

    Args:
        lines: by name, the points of a curve; shares in [0, 1].
        x_label: of the places.
        y_label: of the shares.
        dashed: the names of curves to dash; a name with and one without share a color, by their first word.
    """
    figure, axis = _figure(7.6, 3.7)
    colors = list(dict.fromkeys(name.split(",")[0] for name in lines))
    for name, points in lines.items():
        color = series(colors.index(name.split(",")[0]))
        places = [point[0] for point in points]
        value, low, high = ([100 * point[at] for point in points] for at in (1, 2, 3))
        style = "--" if name in dashed else "-"
        axis.plot(places, value, style, color=color, marker="o", markersize=4, linewidth=1.8, label=name)
        axis.fill_between(places, low, high, color=color, alpha=0.14, linewidth=0)
    axis.set(xlabel=x_label, ylabel=y_label, ylim=(-2, 102))
    axis.grid(color=LINE, linewidth=0.8)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK, handlelength=2.6)
    return _svg(figure)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[int, int], float],
    framed: Sequence[tuple[int, int]],
) -> str:
    """Return a table of colored shares, with the numbers in percent.

    Args:
        rows: their names.
        columns: likewise.
        values: shares in [0, 1] by row and column.
        framed: fields with a frame.
    """
    patches = import_extra("matplotlib.patches", "A drawing", "report")
    longest = max(map(len, rows), default=0)
    figure, axis = _figure(max(5.0, 0.095 * longest + 0.72 * len(columns) + 0.8), 1.7 + 0.46 * len(rows))
    for (row, column), value in values.items():
        color, text = shade(value)
        axis.add_patch(patches.Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor=CARD, linewidth=2))
        axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=text, fontsize=9.5)
    for row, column in framed:
        place = (column - 0.43, row - 0.43)
        axis.add_patch(patches.Rectangle(place, 0.86, 0.86, fill=False, edgecolor=shade(values[row, column])[1]))
    axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="left")
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    return _svg(figure)


def bars(names: Sequence[str], groups: Mapping[str, Sequence[float]], x_label: str) -> str:
    """Return horizontal bars of shares in [0, 1], one for each name and group."""
    figure, axis = _figure(7.6, 0.9 + 0.2 * len(names) * (len(groups) + 0.6))
    height = 0.8 / len(groups)
    for number, (label, values) in enumerate(groups.items()):
        places = [row + (number - (len(groups) - 1) / 2) * height for row in range(len(names))]
        axis.barh(places, [100 * value for value in values], height * 0.9, color=series(number), label=label)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel=x_label, xlim=(0, 100), ylim=(len(names) - 0.4, -0.6))
    axis.grid(color=LINE, linewidth=0.8, axis="x")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK, handlelength=2.6)
    return _svg(figure)


def scatter(groups: Mapping[str, Sequence[tuple[str, Point, Point]]], x_label: str, y_label: str) -> str:
    """Return points with the intervals of both their shares: a color for each group, a shape for each name in it.

    Args:
        groups: by name, the points: the name of each, and its two shares as `(_, value, low, high)` in [0, 1].
        x_label: of the first share.
        y_label: of the second.
    """
    figure, axis = _figure(7.6, 4.4)
    names = list(dict.fromkeys(name for points in groups.values() for name, _, _ in points))
    shapes = {name: "osD^vP*X"[number % 8] for number, name in enumerate(names)}
    for number, (group, points) in enumerate(groups.items()):
        axis.plot([], [], color=series(number), linewidth=3, label=group)  # for the legend
        for name, first, second in points:
            (x, x_low, x_high), (y, y_low, y_high) = ([100 * share for share in one[1:]] for one in (first, second))
            spread = {"xerr": [[x - x_low], [x_high - x]], "yerr": [[y - y_low], [y_high - y]], "capsize": 3}
            axis.errorbar(x, y, **spread, fmt=shapes[name], color=series(number), linewidth=1.4, markersize=6)
    for name, shape in shapes.items():
        axis.plot([], [], shape, color=SOFT, label=name)
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.grid(color=LINE, linewidth=0.8)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK)
    return _svg(figure)


def shade(value: float) -> tuple[str, str]:
    """Return the color of a share, from pale to deep blue, and that of a text on it, of at least 4.5 : 1 contrast."""
    pale, deep = (0xF3, 0xE9, 0xDC), (0x12, 0x4E, 0x78)
    mixed = [round(a + (b - a) * min(max(value, 0.0), 1.0)) for a, b in zip(pale, deep, strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if luminance(mixed) < 0.179 else "#000000"


def luminance(color: Sequence[int]) -> float:
    """Return the relative luminance of red, green and blue of 0 to 255, as WCAG 2.1 defines it."""
    linear = [v / 3294.6 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
    return sum(share * v for share, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figures = import_extra("matplotlib.figure", "A drawing", "report")
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axis = figure.subplots()
    axis.patch.set_alpha(0)
    axis.set_axisbelow(True)
    axis.tick_params(colors=SOFT, labelsize=9)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_color(SOFT)
    for name, side in axis.spines.items():
        side.set_color(LINE)
        side.set_visible(name in ("left", "bottom"))
    return figure, axis


def _svg(figure: Any) -> str:
    """Return a figure as an `<svg>` element with the colors of the page; names are texts, never formulas."""
    matplotlib = import_extra("matplotlib", "A drawing", "report")
    for text in figure.findobj(import_extra("matplotlib.text", "A drawing", "report").Text):
        text.set_parse_math(False)
    content = io.StringIO()
    # One salt for all: the ids of two figures then differ only where their shapes differ.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "forefend"}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = content.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#(\w+)", drawn))
    drawn = re.sub(r' id="(\w+)"', lambda found: found[0] if found[1] in used else "", drawn)
    return re.sub("|".join(_VARIABLES), lambda found: f"var({_VARIABLES[found[0]]})", drawn)
