"""The page that compares runs: the same cells side by side, their differences, and what cannot be compared."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.evaluation.comparison.paired import PairedDifference
from forefend.evaluation.results import CLEAN, WORST, column_title
from forefend.report.evidence.sources import Sources, read_run
from forefend.report.page.blocks import (
    COMPLETE,
    FAILED,
    MISSING,
    PARTIAL,
    Block,
    Cell,
    Code,
    Commands,
    Heading,
    Mark,
    Notice,
    Page,
    Section,
    Share,
    Table,
    Text,
)
from forefend.report.run_comparison import configuration, limits, scatter
from forefend.report.run_comparison.cells import ComparedCell, compared_cells
from forefend.runtime.files import FORMAT
from forefend.runtime.formatting import counted


def comparison(folders: Sequence[str | Path], *, confidence: float = 0.95) -> Page:
    """Make the page that compares runs, from their records alone; differences are to the first run.

    Args:
        folders: of two runs or evaluations, or more.
        confidence: of all intervals, in (0, 1).

    Returns:
        A page for `to_html`, `to_markdown` and `to_json`.

    Raises:
        InputError: fewer than two folders, one twice, or one that holds nothing of forefend.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        given = ", ".join(map(str, paths)) or "no folder"
        raise InputError(f"{given} cannot be compared: give the folders of two different runs, or more, each once.")
    runs = dict(zip(_names(paths), [read_run(path, confidence) for path in paths], strict=True))
    cells = compared_cells(list(runs.values()))
    sections = [
        _differences(runs, cells),
        limits.section(runs, cells),
        scatter.section(runs, cells),
        _cells(runs, cells),
        configuration.section(runs),
        _reproduction(runs, confidence),
    ]
    footer = "Made by forefend from records and summaries alone: nothing was run again."
    subtitle = (
        f"{counted(len(runs), 'run')}; intervals at {100 * confidence:g} %: Wilson's, and Newcombe's of differences"
    )
    return Page(f"Runs compared: {', '.join(runs)}", subtitle, sections, footer, _data(runs, cells, confidence))


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the name of each folder; its path where two have one name."""
    names = [path.resolve().name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def _differences(runs: Mapping[str, Sources], cells: Sequence[ComparedCell]) -> Section:
    """Count the differences that are clear, and show those under the worst attack."""
    first, *others = runs
    found: list[Block] = []
    for number, name in enumerate(others):
        pairs = [(cell, cell.differences[number]) for cell in cells if cell.key.attack in (CLEAN, WORST)]
        paired = [(cell, one) for cell, one in pairs if isinstance(one, PairedDifference)]
        paired = [(cell, one) for cell, one in paired if cell.key.defended] or paired  # the bare ones are the same
        for what, attack in (("attacked", WORST), ("clean", CLEAN)):
            own = [one for cell, one in paired if cell.key.attack == attack]
            if own:
                found.append(Text(_in_words(name, first, what, own)))
        if not paired:
            found.append(Notice(MISSING, f"No accuracy of {name} can be compared with one of {first}, image by image."))
    if any(isinstance(block, Text) for block in found):
        found.append(
            Text(
                "A difference is clear if its interval leaves out 0. Each interval stands alone: among many cells, "
                "some differences look clear by chance."
            )
        )
    grade = PARTIAL if any(isinstance(block, Notice) for block in found) else COMPLETE
    return Section("differences", "What differs", found, grade, f"Each run is compared with {first}, the first.")


def _in_words(name: str, first: str, what: str, found: Sequence[PairedDifference]) -> str:
    more, less = (sum(one.is_clear and (one.difference > 0) == above for one in found) for above in (True, False))
    largest = max(found, key=lambda one: abs(one.difference))
    return (
        f"{name} is clearly more accurate than {first} in {more} of {counted(len(found), f'{what} cell')}, and clearly "
        f"less in {less}; the largest difference is {largest.points} points on {counted(largest.n, 'image')}."
    )


def _cells(runs: Mapping[str, Sources], cells: Sequence[ComparedCell]) -> Section:
    """Show the cells of all runs, a table for each set of images and threat model."""
    first, *others = runs
    heading = ["classifier", "attack", *runs, *(f"{name} − {first}" for name in others)]
    found: list[Block] = []
    shared = [cell for cell in cells if cell.is_shared]
    for data, norm, radius in dict.fromkeys((cell.key.data, cell.key.norm, cell.key.radius) for cell in shared):
        own = [cell for cell in shared if (cell.key.data, cell.key.norm, cell.key.radius) == (data, norm, radius)]
        found.append(Heading(f"{data or limits.UNRECORDED}, {column_title(norm, radius)}"))
        found.append(Table(heading, [_row(cell) for cell in own], _caption(runs, own)))
    if not cells:
        found.append(
            Notice(MISSING, "No run was evaluated.", shlex.join(["forefend", "evaluate", str(runs[first].run)]))
        )
    elif not shared:
        found.append(Notice(MISSING, "No accuracy was measured by two runs."))
    lead = "Accuracy in percent with its interval; differences in points, image by image."
    return Section("cells", "Accuracies side by side", found, "", lead)


def _caption(runs: Mapping[str, Sources], cells: Sequence[ComparedCell]) -> str:
    """Say how many images each accuracy is of, and the seed."""
    parts = []
    for number, name in enumerate(runs):
        own = [one.result for cell in cells if (one := cell.measured[number])]
        counts, seeds = ({str(getattr(result, what)) for result in own} for what in ("n", "seed"))
        parts += [f"{name}: n={' and '.join(sorted(counts))}, seed {' and '.join(sorted(seeds))}"] if own else []
    return "; ".join(parts)


def _row(cell: ComparedCell) -> list[Cell]:
    row: list[Cell] = [cell.key.model, cell.attack]
    for one in cell.measured:
        row.append(Share(one.result.accuracy, one.result.low, one.result.high, one.result.n) if one else "–")
    for difference in cell.differences:
        row.append(_difference(difference, max(one.result.n for one in cell.measured if one)))
    return row


def _difference(found: PairedDifference | str, images: int) -> Cell:
    """Return a difference; with its number of images where that is not the number of the accuracies."""
    if isinstance(found, str):
        return found
    text = found.points if found.n == images else str(found)
    return Mark(COMPLETE if found.difference > 0 else FAILED, text) if found.is_clear else text


def _reproduction(runs: Mapping[str, Sources], confidence: float) -> Section:
    folders = shlex.join(str(run.run) for run in runs.values())
    told = [one.told.get("command") for run in runs.values() for one in run.evaluations]
    found: list[Block] = [Commands([f"forefend report {folders} --html compared.html --confidence {confidence:g}"])]
    evaluated = list(dict.fromkeys(map(str, filter(None, told))))
    if evaluated:
        found.append(Table(["evaluated by"], [[Code(line)] for line in evaluated]))
    return Section("reproduction", "How to reproduce", found)


def _data(runs: Mapping[str, Sources], cells: Sequence[ComparedCell], confidence: float) -> dict[str, Any]:
    """Return the numbers of the page for programs."""
    about = {
        name: {"folder": str(run.run), "recipe": run.config.get("recipe"), "threat": run.threat}
        for name, run in runs.items()
    }
    held = []
    for cell in cells:
        own: dict[str, Any] = asdict(cell.key)
        own["runs"] = {name: asdict(one.result) if one else None for name, one in zip(runs, cell.measured, strict=True)}
        own["differences"] = {
            name: asdict(one) if isinstance(one, PairedDifference) else {"missing": one}
            for name, one in zip(list(runs)[1:], cell.differences, strict=True)
        }
        held.append(own)
    return {"format": FORMAT, "confidence": confidence, "runs": about, "cells": held}
