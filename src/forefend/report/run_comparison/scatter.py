"""Robust against clean accuracy of the models of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forefend.evaluation.results import CLEAN, WORST, Result, column_title
from forefend.report.evidence.sources import Sources
from forefend.report.page import charts
from forefend.report.page.blocks import Block, Figure, Section, Text
from forefend.report.run_comparison.cells import ComparedCell


def section(runs: Mapping[str, Sources], cells: Sequence[ComparedCell]) -> Section:
    """Draw a figure for each set of images and threat model that two runs or more were measured with."""
    robust = [cell for cell in cells if cell.key.attack == WORST]
    clean = {(cell.key.data, cell.key.model): cell for cell in cells if cell.key.attack == CLEAN}
    found: list[Block] = []
    for data, norm, radius in dict.fromkeys((cell.key.data, cell.key.norm, cell.key.radius) for cell in robust):
        own = [cell for cell in robust if (cell.key.data, cell.key.norm, cell.key.radius) == (data, norm, radius)]
        groups = {name: _points(own, clean, number) for number, name in enumerate(runs)}
        groups = {name: points for name, points in groups.items() if points}
        if len(groups) > 1:
            found.append(_figure(groups, f"{data}, {column_title(norm, radius)}"))
    return Section(
        "scatter",
        "Robust against clean accuracy",
        found or [Text("No two runs were measured on the same images in the same threat model.")],
        "",
        "Under the worst attack on each image that a run was measured with; bars are intervals.",
    )


def _points(
    robust: Sequence[ComparedCell], clean: Mapping[tuple[str, str], ComparedCell], number: int
) -> list[tuple[str, charts.Point, charts.Point]]:
    """Return the points of a run: of its defended models where there are any."""
    own = [cell for cell in robust if cell.measured[number] is not None]
    own = [cell for cell in own if cell.key.defended] or own
    found = []
    for cell in own:
        one, alone = cell.measured[number], clean[cell.key.data, cell.key.model].measured[number]
        if one and alone:
            found.append((cell.key.classifier, _share(alone.result), _share(one.result)))
    return found


def _share(result: Result) -> charts.Point:
    return 0.0, result.accuracy, result.low, result.high


def _figure(groups: Mapping[str, Sequence[tuple[str, charts.Point, charts.Point]]], title: str) -> Figure:
    said = [
        f"{name}, {text}: {100 * clean[1]:.1f} clean, {100 * robust[1]:.1f} robust"
        for name, points in groups.items()
        for text, clean, robust in points
    ]
    svg = charts.scatter(groups, "clean accuracy, %", "robust accuracy, %")
    return Figure(title, f"Accuracies in percent. {'; '.join(said)}.", svg)
